#!/bin/sh
# Debian's chromium and its driver, for tests/test_page.py. Does nothing where they are there.
set -eu
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "chromium and chromedriver are missing, and only root can install them with apt-get" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null
