#!/bin/bash
# Fetches Debian packages and unpacks each to DIR/x/PACKAGE; nothing is installed. A package that is there already is left
# alone: its last step is a rename. Usage: deb.sh DIR PACKAGE...
set -euo pipefail
dir=${1:?usage: deb.sh DIR PACKAGE...}
mkdir -p "$dir"/{deb,x}
cd "$dir"
for package in "${@:2}"; do
  [ -e "x/$package" ] && continue
  command -v apt-get > /dev/null || { echo 'deb.sh needs apt-get and dpkg, of Debian or Ubuntu.' >&2; exit 1; }
  echo "fetching $package"
  # Without the option, apt warns a root user that it cannot give the file to its own user.
  (cd deb && apt-get -q -o APT::Sandbox::User=root download "$package") || {
    echo "apt-get does not find $package. Try 'apt-get update' as root." >&2
    exit 1
  }
  rm -rf "x/$package.incomplete"
  dpkg -x deb/"${package}"_*.deb "x/$package.incomplete"
  mv "x/$package.incomplete" "x/$package"
done
