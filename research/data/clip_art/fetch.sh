#!/bin/bash
# Fetches the Open Clip Art Library (25 MB, 170 MB unpacked) and WordNet (10 MB), both from Debian; nothing is installed.
# What DIR already holds is left alone. Usage: fetch.sh DIR
set -euo pipefail
"$(dirname "$0")/../../../data/deb.sh" "${1:?usage: fetch.sh DIR}" openclipart-svg wordnet-base
echo "complete: $1"
