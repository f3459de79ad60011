"""The page in a real browser: what it shows, that nothing of the users' runs, and how long it takes to open.

Needs Debian's `chromium` and `chromium-driver`, which `make test` installs where it can.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from folders import drawing, made, write_folder
from samples import entry, failed

import batchgen
from batchgen.model import Billed, Entry, Failure, Outcome
from batchgen.runner import reporting

webdriver = pytest.importorskip("selenium.webdriver", reason="the browser tests need selenium (pip install '.[dev]')")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER) and os.environ.get("CI") != "true":
    pytest.skip("Debian's chromium and chromium-driver are not here", allow_module_level=True)

EVIL = """</script><script>alert(1)</script><img src=x onerror="alert(2)">'"& {{7*7}} </style>"""
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever it would like to ask the network
)
MANY = 10_000


class Browser:
    """One Chromium for all tests of this module; `errors` empties what its console has said."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER or "chromedriver")
        self.driver: Any = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(20)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open(self, root: Path, hash: str = "", *, width: int = 1280, dark: bool = False) -> None:
        sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self.driver.get((root / "report.html").as_uri() + (f"#{hash}" if hash else ""))
        assert self.run("return document.documentElement.dataset.ready") == "1"

    def follow(self, root: Path, hash: str) -> None:
        """Another address of the page that is open, as a click on a link would show it."""
        if self.run("return location.pathname") != str(root / "report.html"):
            self.open(root)
        self.driver.execute_async_script(
            "if (location.hash === `#${arguments[0]}`) arguments[1](); addEventListener('hashchange', () =>"
            " setTimeout(arguments[1]), {once: true}); location.hash = arguments[0]",
            hash,
        )

    def until(self, script: str) -> Any:
        """What `script` gives as soon as it gives something."""
        return self.driver.execute_async_script(
            "const done = arguments[0], ask = () => { const found = (() => {" + script + "})();"
            " if (found) done(found); else setTimeout(ask, 10); }; ask();"
        )

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
        )
        return found

    def ids(self) -> list[str]:
        """The jobs that the gallery shows, in order."""
        script = (
            "return [...document.querySelectorAll('.tile')].sort((a, b) => a.dataset.place - b.dataset.place)"
            ".map((e) => e.querySelector('.id').textContent)"
        )
        return list(self.run(script))

    def choose(self, label: str, value: str) -> None:
        self.run(
            'const s = document.querySelector(`select[aria-label="${arguments[0]}"]`); s.value = arguments[1];'
            " s.dispatchEvent(new Event('change'))",
            label,
            value,
        )

    def press(self, key: str) -> None:
        webdriver.ActionChains(self.driver, duration=0).send_keys(getattr(webdriver.Keys, key)).perform()

    @property
    def hash(self) -> str:
        return str(self.run("return location.hash"))

    def errors(self) -> list[str]:
        return [line["message"] for line in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    os.environ["SE_OFFLINE"] = "true"  # the driver is named: nothing is to be looked for
    found = Browser()
    yield found
    found.driver.quit()


@pytest.fixture(autouse=True)
def clean_console(browser: Browser) -> Iterator[None]:
    """Nothing may be refused, missing or thrown, in any test."""
    browser.errors()
    yield
    assert browser.errors() == []


def report(root: Path) -> Path:
    reporting.report(root, {}, lambda said: None)
    return root


def jobs(root: Path) -> Iterator[Entry]:
    """Four done, one failed, one without its file; two kinds, one of them with all that is evil."""
    for n, (kind, seconds) in enumerate([("cat", 3.0), ("dog", 1.0), ("cat", 2.0), ("dog", 4.0)]):
        asked = {"prompt": f"a {kind} in the rain", "seed": 9007199254740993 + n, "scheduler": "ddim"}
        one = made(root, f"{kind}/{n}", drawing(n), request=asked, meta={"kind": kind})
        at = f"2026-11-22T12:00:0{9 - n}.000Z"
        yield msgspec.structs.replace(one, inference_s=seconds, finished_at=at)
    lost = (failed(Failure.REFUSED_CONTENT, message=EVIL),)
    yield made(root, "lost", outcome=Outcome.FAILED, images=(), attempts=lost, billed=Billed.NO, inference_s=None)
    evil = made(root, "evil", request={"prompt": EVIL, EVIL: EVIL}, meta={EVIL: EVIL}, model=EVIL, notes=(EVIL,))
    (root / "images/evil.png").unlink()
    yield evil


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page; no test of this module changes it."""
    base = tmp_path_factory.mktemp("page") / "outputs" / "m"
    return report(write_folder(base, list(jobs(base))))


def test_text_of_the_users_is_shown_and_never_run(browser: Browser, root: Path) -> None:
    """Prompts, names, meta, notes and messages with markup in them stand there as they were written."""
    browser.open(root, "open=evil")
    said = browser.run("return document.getElementById('dialog').textContent")
    assert said.count(EVIL) >= 7
    assert EVIL in browser.texts(".failure .message")
    assert browser.run("return document.scripts.length") == 2
    assert not browser.run("return document.querySelector('[onerror]')")


def test_pictures_are_shown_from_a_file_and_missing_ones_explained(browser: Browser, root: Path) -> None:
    """Thumbnails load under the page's policy; in place of a picture that is gone stand words."""
    browser.open(root)
    assert browser.until("const i = [...document.images]; return i.every((e) => e.naturalWidth) && i.length") == 4
    assert browser.ids() == ["cat/0", "dog/1", "cat/2", "dog/3", "lost", "evil"]
    assert browser.texts(".tile .instead") == ["refused content", "the picture is not in the folder"]


FILTERS: dict[str, tuple[str, list[str]]] = {
    "text of the prompt": ("q=CAT+rain", ["cat/0", "cat/2"]),
    "text of the id": ("q=og%2F", ["dog/1", "dog/3"]),
    "nothing": ("q=giraffe", []),
    "outcome": ("outcome=failed", ["lost"]),
    "meta": ("meta.kind=dog", ["dog/1", "dog/3"]),
    "meta and text": ("meta.kind=dog&q=3", ["dog/3"]),
    "cause of a failure": ("group=0", ["lost"]),
    "model": ("model=flux&q=cat", ["cat/0", "cat/2"]),
    "by id": ("sort=id&q=rain", ["cat/0", "cat/2", "dog/1", "dog/3"]),
    "by time": ("sort=oldest&q=rain", ["dog/3", "cat/2", "dog/1", "cat/0"]),
    "by inference time": ("sort=slowest&q=rain", ["dog/3", "cat/0", "cat/2", "dog/1"]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_link_shows_what_it_was_made_of(browser: Browser, root: Path, name: str) -> None:
    """Filters and order live in the address."""
    hash, expected = FILTERS[name]
    browser.follow(root, hash)
    assert browser.ids() == expected


def test_tools_change_the_view_and_its_address(browser: Browser, root: Path) -> None:
    """Choosing and typing filter at once; what is chosen can be sent to somebody else; one click takes it back."""
    browser.open(root)
    browser.choose("kind", "dog")
    browser.choose("Order", "fastest")
    assert browser.ids() == ["dog/1", "dog/3"]
    assert browser.hash == "#meta.kind=dog&sort=fastest"
    browser.run(
        "const s = document.querySelector('input[type=search]'); s.value = '3'; s.dispatchEvent(new Event('input'))"
    )
    browser.until("return document.querySelectorAll('.tile').length === 1")
    assert browser.hash == "#meta.kind=dog&sort=fastest&q=3"
    browser.run("document.querySelector('button.link').click()")
    assert len(browser.ids()) == 6
    browser.run("document.querySelector('.failure a.show').click()")
    browser.until("return document.querySelectorAll('.tile').length === 1")
    assert browser.ids() == ["lost"]


def test_the_dialog_is_worked_with_keys(browser: Browser, root: Path) -> None:
    """Enter opens, arrows walk through what is shown, Escape closes; the address follows, and so does the focus."""
    browser.open(root, "q=rain")
    browser.run("document.querySelector('.tile').focus()")
    browser.press("ARROW_RIGHT")
    assert browser.run("return document.activeElement.dataset.place") == "1"
    browser.press("ENTER")
    assert browser.texts("dialog h2") == ["dog/1"]
    browser.press("ARROW_RIGHT")
    browser.press("ARROW_RIGHT")
    browser.press("ARROW_RIGHT")
    assert browser.texts("dialog h2") == ["dog/3"]
    assert "open=dog" in browser.hash
    assert browser.until("const i = document.querySelector('dialog img'); return i.naturalWidth") == 48
    browser.press("ESCAPE")
    browser.until("return !location.hash.includes('open=')")
    assert browser.hash == "#q=rain"
    assert browser.run("return document.activeElement.dataset.place") == "3"


def test_the_dialog_tells_everything(browser: Browser, root: Path) -> None:
    """Parameters, meta, timings, attempts and where the picture is."""
    browser.open(root, "open=cat%2F0")
    said = browser.run("return document.querySelector('dialog').innerText")
    for part in (
        "a cat in the rain",
        "9007199254740993",
        "ddim",
        "kind",
        "3.00 s",
        "m.yaml, line 1",
        "images/cat/0.png",
        "200",
    ):
        assert part in said


ODD = 'a "fox"\n- {x}: #1 \\ \t 狐 🦊 \u2028 \u0085 \x7f \ufeff'
PARAMS = {"strength": 0.30000000000000004, "n": 1e22, "big": 2**60, "on": [True, None, {"a": "1"}]}
META = {"k: v": "- x", "n": 10, "deep": {"a": [1.5]}, "no": "no"}
ENTRIES: list[dict[str, Any]] = [
    {"id": "plain", "prompt": "a fox", "seed": 2**63 - 1, "width": 64, "height": 64},
    {"id": "deep/é", "prompt": ODD, "negative_prompt": "yes: no"},
    {"id": "params", "prompt": "no", "params": PARAMS},
    {"id": "meta", "prompt": "1e3", "guidance_scale": 3.5, "num_steps": 4, "meta": META},
    {"id": "inputs", "prompt": "{x} a hat", "image": "in/a b.png", "mask": "in/m.png"},
]


def test_a_copied_entry_makes_the_same_request(browser: Browser, tmp_path: Path) -> None:
    """What is copied is read back by the manifest's reader to the same job, whatever stands in it."""
    (tmp_path / "in").mkdir()
    for n, name in enumerate(("a b.png", "m.png")):
        (tmp_path / "in" / name).write_bytes(drawing(n))
    lines = [json.dumps({"model": "flux", **one}) for one in ENTRIES]
    (tmp_path / "m.jsonl").write_text("\n".join(lines), "utf-8")
    wanted = list(batchgen.read(tmp_path / "m.jsonl"))
    assert len(wanted) == len(ENTRIES)
    base = tmp_path / "outputs" / "m"
    report(write_folder(base, [made(base, j.id, model=j.model, request=j.request, meta=j.meta) for j in wanted]))
    copied = []
    for one in wanted:
        browser.open(base, f"open={one.id}")
        copied += browser.texts("dialog pre.entry")
    (tmp_path / "again.yaml").write_text("jobs:\n" + "".join(copied), "utf-8")
    found = list(batchgen.read(tmp_path / "again.yaml"))
    for one, again in zip(wanted, found, strict=True):
        assert (again.id, again.model, again.request, again.meta) == (one.id, one.model, one.request, one.meta)
        assert again.fingerprint == one.fingerprint


@pytest.mark.parametrize("broken", [False, True], ids=["clipboard", "fallback"])
def test_copying_says_that_it_was_done(browser: Browser, root: Path, broken: bool) -> None:
    """Also where the browser does not let a file's page write to the clipboard."""
    browser.open(root, "open=dog%2F1")
    if broken:
        browser.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    else:
        browser.run("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    browser.driver.find_element("css selector", "dialog .copy").click()
    script = "const b = document.querySelector('dialog .copy').textContent; return b !== 'Copy' && b"
    assert browser.until(script) == "Copied"
    assert not browser.run("return document.querySelector('textarea')")


def test_a_matrix_is_shown_as_its_grid(browser: Browser, tmp_path: Path) -> None:
    """The first axes are rows and columns; others share a cell in their order, and can be chosen instead."""
    axes = {"animal": ["otter", "cat"], "look": ["old", "new"], "light": ["noon", "dawn"]}
    matrix = {"id": "{animal}-{look}-{light}", "prompt": "a {look} {animal} at {light}", "matrix": axes}
    (tmp_path / "m.yaml").write_text(json.dumps({"defaults": {"model": "flux"}, "jobs": [matrix]}))
    base = tmp_path / "outputs" / "m"
    wanted = list(batchgen.read(tmp_path / "m.yaml"))
    report(write_folder(base, [made(base, j.id, request=j.request, axes=j.axes) for j in reversed(wanted)]))
    browser.open(base)
    assert browser.texts(".grid thead th") == ["old", "new"]
    assert browser.texts(".grid tbody th") == ["otter", "cat"]
    first = "document.querySelectorAll('.grid tbody tr:first-child td')"
    titles = f"return [...{first}].map((cell) => [...cell.children].map((b) => b.title))"
    assert browser.run(titles) == [["otter-old-noon", "otter-old-dawn"], ["otter-new-noon", "otter-new-dawn"]]
    browser.choose("Columns", "axis.light")
    assert browser.texts(".grid thead th") == ["noon", "dawn"]
    browser.choose("look", "old")
    assert browser.run(titles) == [["otter-old-noon"], ["otter-old-dawn"]]
    browser.run("document.querySelector('.grid button').click()")
    assert browser.texts("dialog h2") == ["otter-old-noon"]
    browser.run("document.querySelector('dialog .close').click(); document.querySelector('.kind button').click()")
    assert len(browser.ids()) == 4


def brightness(colour: str) -> int:
    return sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")))


def test_it_can_be_read_on_a_phone_and_in_the_dark(browser: Browser, root: Path) -> None:
    """Nothing is wider than 360 pixels, two pictures stand side by side, and the page follows the system's colours."""
    browser.open(root, width=360)
    assert browser.run("return document.documentElement.scrollWidth") == 360
    tops = browser.run("return [...document.querySelectorAll('.tile')].map((e) => e.getBoundingClientRect().top)")
    assert tops[0] == tops[1] < tops[2]
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.open(root, width=360, dark=True)
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert brightness(dark) < 150 < 600 < brightness(light)


def test_ten_thousand_pictures_open_at_once(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what is near the window is in the page, however far somebody scrolls; the time to open is told."""
    base = tmp_path / "outputs" / "m"
    few = [made(base, f"p{n}", drawing(n)).images[0] for n in range(20)]
    meta = [{"k": k} for k in range(7)]
    asked = "study {} of a fox in the rain"
    log = (
        entry(job=f"{n:05d}", images=(few[n % 20],), request={"prompt": asked.format(n)}, meta=meta[n % 7])
        for n in range(MANY)
    )
    report(write_folder(base, log))
    begun = time.monotonic()
    browser.open(base)
    taken = time.monotonic() - begun
    with capsys.disabled():
        size = (base / "report.html").stat().st_size
        print(f"\n{MANY:,} pictures: a page of {size / 1e6:.1f} MB opened in {taken:.2f} s")  # noqa: T201
    assert taken < 20
    assert "10,000 jobs" in browser.texts("#count")[0]
    browser.run("document.querySelector('#more button').click()")
    browser.run("scrollTo(0, document.querySelector('.tiles').offsetHeight / 2)")
    browser.until("return [...document.querySelectorAll('.tile')].some((e) => e.dataset.place > 4000)")
    assert browser.run("return document.querySelectorAll('.tile').length") < 200
    browser.run("document.querySelector('.tile').click()")
    assert " of 10,000" in browser.texts("dialog .where")[0]


def test_without_scripts_there_is_a_list(browser: Browser, root: Path) -> None:
    """Verdict, failures and charts are there as ever, and every picture has a link."""
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get((root / "report.html").as_uri() + "?plain")
        links = browser.driver.find_elements("css selector", "ul.plain a")
        assert [link.text for link in links] == ["cat/0", "dog/1", "cat/2", "dog/3"]
        assert links[0].get_attribute("href").endswith("/images/cat/0.png")
        assert browser.driver.find_elements("css selector", "figure.chart svg")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
