#!/bin/bash
# Fetches the icon sets (104 MB from npm, 470 MB unpacked) and WordNet (10 MB from Debian); nothing is installed. What DIR
# already holds is left alone. Usage: fetch.sh DIR
set -euo pipefail
dir=${1:?usage: fetch.sh DIR}
mkdir -p "$dir"/{deb,npm,x,n}
cd "$dir"

if [ ! -d x/wordnet-base ]; then
  (cd deb && apt-get download wordnet-base)
  rm -rf x/wordnet-base.incomplete
  dpkg -x deb/wordnet-base_*.deb x/wordnet-base.incomplete
  mv x/wordnet-base.incomplete x/wordnet-base
fi
sets=iconify-json-2.2.535
if [ ! -d n/$sets ]; then
  (cd npm && npm pack @iconify/json@2.2.535 --silent > /dev/null)
  rm -rf n/$sets.incomplete
  mkdir n/$sets.incomplete
  tar xzf npm/$sets.tgz -C n/$sets.incomplete
  mv n/$sets.incomplete n/$sets
fi
echo "complete: $PWD"
