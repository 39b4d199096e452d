#!/bin/bash
# Fetches GIMP's manual in the languages named, from Debian's archive (50 MB each, 75 MB unpacked), or other manuals;
# nothing is installed. What RAW already holds is left alone. Usage: fetch.sh RAW LANGUAGE...   (bg ca cs da de el en
# en-gb es fa fi fr hr hu it ja ko lt nl nn pl pt pt-br ro ru sl sv tr uk zh-cn), or fetch.sh RAW PACKAGE...
# (debian-handbook, 35 MB, 26 languages; kicad-doc-LANGUAGE, 30 MB each; python-sklearn-doc, 52 MB; stellarium-data,
# 246 MB, 32 languages)
set -euo pipefail
dir=${1:?usage: fetch.sh RAW LANGUAGE...}
shift
[ $# -gt 0 ] || { echo 'usage: fetch.sh RAW LANGUAGE...   such as: fetch.sh RAW en de ja' >&2; exit 2; }
packages=()
for name in "$@"; do
  case $name in
    debian-handbook | kicad-doc-* | python-sklearn-doc | stellarium-data) packages+=("$name") ;;
    *) packages+=("gimp-help-$name") ;;
  esac
done
"$(dirname "$0")/../deb.sh" "$dir" "${packages[@]}"
