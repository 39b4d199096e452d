#!/bin/bash
# Fetches Debian packages and unpacks each to DIR/x/PACKAGE; nothing is installed. A package that is there already is left
# alone: its last step is a rename. Usage: deb.sh DIR PACKAGE...
set -euo pipefail
dir=${1:?usage: deb.sh DIR PACKAGE...}
mkdir -p "$dir"/{deb,x}
cd "$dir"
for package in "${@:2}"; do
  [ -e "x/$package" ] && continue
  echo "fetching $package"
  (cd deb && apt-get download "$package")
  rm -rf "x/$package.incomplete"
  dpkg -x deb/"${package}"_*.deb "x/$package.incomplete"
  mv "x/$package.incomplete" "x/$package"
done
