#!/bin/bash
# Fetches the Open Clip Art Library (25 MB, 170 MB unpacked) and WordNet (10 MB), both from Debian; nothing is installed.
# What DIR already holds is left alone. Usage: fetch.sh DIR
set -euo pipefail
dir=${1:?usage: fetch.sh DIR}
mkdir -p "$dir"/{deb,x}
cd "$dir"

for package in openclipart-svg wordnet-base; do
  if [ ! -d x/$package ]; then
    (cd deb && apt-get download $package)
    rm -rf x/$package.incomplete
    dpkg -x deb/${package}_*.deb x/$package.incomplete
    mv x/$package.incomplete x/$package
  fi
done
echo "complete: $PWD"
