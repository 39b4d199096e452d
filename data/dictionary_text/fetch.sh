#!/bin/bash
# Fetches the names, keywords and glosses from which the documents are made (12 MB from Debian and npm, 25 MB more for the
# emoji categories); nothing is installed. What DIR already holds is left alone. Usage: fetch.sh DIR
set -euo pipefail
dir=${1:?usage: fetch.sh DIR}
"$(dirname "$0")/../deb.sh" "$dir" wordnet-base
mkdir -p "$dir"/{npm,n}
cd "$dir"

for package in cldr-annotations-full-48.2.0 emoji-datasource-16.0.0; do
  if [ ! -d "n/$package" ]; then
    (cd npm && npm pack "${package%-*}@${package##*-}" --silent > /dev/null)
    rm -rf "n/$package.incomplete" && mkdir "n/$package.incomplete"
    tar xzf "npm/$package.tgz" -C "n/$package.incomplete"
    mv "n/$package.incomplete" "n/$package"
  fi
done
