#!/bin/bash
# Fetches the examples of ComfyUI's workflows from PyPI (390 MB); nothing is installed. What DIR already holds is left
# alone: a package's last step is a rename. Usage: fetch.sh DIR
set -euo pipefail
dir=${1:?usage: fetch.sh DIR}/prompted
mkdir -p "$dir"
python=$(command -v python || command -v python3)
for package in json==0.1.123 media-{api==0.3.84,image==0.3.160,other==0.3.229,video==0.3.101}; do
  name=comfyui_workflow_templates_$(tr - _ <<< "${package%==*}")
  [ -e "$dir/$name" ] && continue
  raw=$dir/$name.incomplete
  rm -rf "$raw"
  "$python" -m pip download --quiet --no-deps --dest "$raw" "comfyui-workflow-templates-$package"
  "$python" -m zipfile -e "$raw"/*.whl "$raw"
  mv "$raw/$name" "$dir/$name"
  rm -r "$raw"
done
echo "complete: $1"
