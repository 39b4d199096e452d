#!/bin/bash
# Fetches the raw packages of the picture dictionary through their ordinary clients (npm, apt-get) and unpacks them;
# nothing is installed. 265 MB of packages, 845 MB in all with what is unpacked; --animations fetches 730 MB of clips too,
# and --icons 104 MB of icon sets and 8 MB of WordNet, which tells what icons are of things.
# What is there already is not fetched again, and an interrupted run is taken up where it stopped: a package counts as
# there when its last step, a rename, is done.
#
#   bash data/picture_dictionary/fetch.sh [--animations] [--icons] RAW_DIR
#
# Needs npm, and apt-get and dpkg on a Debian that carries tuxpaint-stamps-default (no root).
set -euo pipefail

animations=no icons=no
while [[ ${1:-} == -* ]]; do
  case $1 in --animations) animations=yes ;; --icons) icons=yes ;; *) break ;; esac
  shift
done
if [ $# -ne 1 ] || [[ $1 == -* ]]; then echo "usage: fetch.sh [--animations] [--icons] RAW_DIR" >&2; exit 2; fi
[ $icons = no ] || "$(dirname "$0")/../deb.sh" "$1" wordnet-base
mkdir -p "$1/npm" "$1/deb" "$1/n" "$1/x"
cd "$1"

packages=(
  emoji-datasource@16.0.0
  emoji-datasource-google@16.0.0
  emoji-datasource-twitter@16.0.0
  openmoji@17.0.0
  @iconify-json/fluent-emoji-flat@1.2.6
  @iconify-json/noto-v1@1.2.5
  @lobehub/fluent-emoji-3d@1.1.0
  cldr-annotations-full@48.2.0
  cldr-annotations-derived-full@48.2.0
)
if [ $animations = yes ]; then
  for part in 1 2 3 4; do packages+=("@lobehub/fluent-emoji-anim-$part@1.0.0"); done
fi
if [ $icons = yes ]; then packages+=(@iconify/json@2.2.535); fi

for tool in npm apt-get dpkg; do
  command -v $tool >/dev/null || { echo "fetch.sh needs $tool, which is not installed" >&2; exit 1; }
done

for package in "${packages[@]}"; do
  name=${package#@}
  name=${name/\//-}
  name=${name/@/-}  # @iconify-json/noto-v1@1.2.5 -> iconify-json-noto-v1-1.2.5, as npm pack calls the file
  [ -e "n/$name" ] && continue
  echo "fetching $package"
  (cd npm && npm pack "$package" --silent >/dev/null)
  rm -rf "n/$name.incomplete"
  mkdir "n/$name.incomplete"
  tar xzf "npm/$name.tgz" -C "n/$name.incomplete"
  mv "n/$name.incomplete" "n/$name"
done

stamps=tuxpaint-stamps-default
if [ ! -e x/$stamps ]; then
  echo "fetching $stamps"
  (cd deb && apt-get download $stamps=2025.03.31-1) || {
    echo "No $stamps 2025.03.31-1 here (apt-cache policy $stamps shows what is). Run 'apt-get update', or use Debian 13." >&2
    exit 1
  }
  rm -rf x/$stamps.incomplete
  dpkg -x deb/${stamps}_2025.03.31-1_all.deb x/$stamps.incomplete
  mv x/$stamps.incomplete x/$stamps
fi
echo "complete: $PWD"
