"""The same run on many machines: a driver hands jobs out, workers do them, a limiter keeps the pace and the money.

`worker` runs the pool on a machine, `driver` stands in the pool's place where the log is, `limiter` is asked before
anything is sent, `messages` is what they say to each other; none of these knows how the others are reached. `nodes`
does: it alone imports Ray. Of the driver's, `staff` knows which machine has a worker, `handouts` which jobs are with
whom, and `keeper` keeps the limiter; `leave` is a worker's side of the limiter. Nothing here decides about a job: that
is the pool's, wherever it runs.
"""
