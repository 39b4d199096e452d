#!/bin/bash
# Fetches the portraits, stories and translations of Battle for Wesnoth (130 MB) from Debian; nothing is installed.
# What DIR already holds is left alone. Usage: fetch.sh DIR
set -euo pipefail
"$(dirname "$0")/../../../data/deb.sh" "${1:?usage: fetch.sh DIR}" wesnoth-1.18-data wesnoth-1.18-httt
echo "complete: $1"
