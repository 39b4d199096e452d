#!/bin/bash
# Fetches the examples of ComfyUI's workflows from PyPI (390 MB); nothing is installed. What DIR already holds is left
# alone. Usage: fetch.sh DIR
set -euo pipefail
dir=${1:?usage: fetch.sh DIR}
mkdir -p "$dir"/{wheels,prompted}
for package in json==0.1.123 media-{api==0.3.84,image==0.3.160,other==0.3.229,video==0.3.101}; do
  name=comfyui_workflow_templates_$(tr - _ <<< "${package%==*}")
  [ -e "$dir/prompted/$name" ] && continue
  pip download --quiet --no-deps --dest "$dir/wheels" "comfyui-workflow-templates-$package"
  rm -rf "$dir/prompted/$name.incomplete"
  unzip -q "$dir/wheels/$name-${package#*==}"-*.whl "$name/*" -d "$dir/prompted/$name.incomplete"
  mv "$dir/prompted/$name.incomplete/$name" "$dir/prompted/$name"
  rmdir "$dir/prompted/$name.incomplete"
done
echo "complete: $dir"
