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
command -v apt-get > /dev/null || { echo 'fetch.sh needs apt-get and dpkg-deb, of Debian or Ubuntu.' >&2; exit 1; }
mkdir -p "$dir/deb"
for language in "$@"; do
  case $language in
    debian-handbook | kicad-doc-* | python-sklearn-doc | stellarium-data) package=$language ;;
    *) package=gimp-help-$language ;;
  esac
  [ -d "$dir/$package" ] && continue
  # Without the option, apt warns a root user that it cannot give the file to its own user.
  (cd "$dir/deb" && apt-get -q -o APT::Sandbox::User=root download "$package") || {
    echo "apt-get does not find $package. Try 'apt-get update' as root." >&2
    exit 1
  }
  rm -rf "$dir/.$package"
  dpkg-deb -x "$dir"/deb/"$package"_*.deb "$dir/.$package"
  mv "$dir/.$package" "$dir/$package"
done
