#!/usr/bin/env bash
# Makes every table of research/small_model.md again, unattended: data, language model, training runs, evaluations.
#
#     bash data/picture_dictionary/fetch.sh --animations RAW; bash data/dictionary_text/fetch.sh RAW
#     bash research/results.sh RAW WORK
#
# What stands in WORK is not made again, and a training run goes on where it stopped: after a stop, the same command.
# WORK/times.tsv gets the wall time of each command; `python -m research.results WORK` prints the tables at any time.
set -euo pipefail
raw=${1:?usage: results.sh RAW WORK} work=${2:?usage: results.sh RAW WORK}
mkdir -p "$work"
raw=$(realpath "$raw") work=$(realpath "$work")
cd "$(dirname "$0")/.."
text=$work/data/dictionary_text images=$work/data/picture_dictionary/full/1.0.0

# make FILE MODULE ARGUMENTS: runs the module, unless the FILE that it ends with is there.
make() {
  [ -e "$1" ] && return
  printf '\n$ python -m %s\n' "${*:2}"
  local start=$SECONDS
  python -m "${@:2}"
  printf '%s\t%s\n' "${1#"$work"/}" $((SECONDS - start)) >> "$work/times.tsv"
}

# Data, trunk, features.
make "$text/copying_full" data.dictionary_text.build --raw="$raw" --out="$work/data" --config=copying_full
for config in full names_full; do
  make "$text/$config" data.dictionary_text.build --raw="$raw" --out="$work/data" --config="$config"
done
make "$images" data.picture_dictionary.build --raw="$raw" --out="$work/data" --config=full
measured=(--standardise="$images" --styles=noto,twemoji,openmoji-color,fluent-flat)
make "$work/trunk" flamingo_jax.convert efficientnet --image_size=160 "${measured[@]}" --out="$work/trunk"
for split in train,4 validation,1 test,1; do
  make "$work/features/${split%,*}.json" flamingo_jax.features --data="$images" --vision="$work/trunk" --out="$work/features" \
    --splits="${split%,*}" --views="${split#*,}"
done

# The language model, on text alone: first it learns to copy.
make "$work/lm.model" flamingo_jax.inputs.tokenizer --data="$text/full/1.8.0" --records=60000 --vocab_size=8192 --out="$work/lm.model"
lm() {  # Half of a batch on each of two CPU devices.
  XLA_FLAGS=--xla_force_host_platform_device_count=2 make "$work/lm/checkpoints/$1" flamingo_jax.train \
    --config="experiments/lm_pictures.py:${3-}" --workdir="$work/lm" --config.tokenizer="$work/lm.model" \
    --config.datasets.text.path="$text/$2/1.8.0"
}
lm_is_at() { [ -e "$work/lm/checkpoints/$1" ]; }  # A finished run keeps the checkpoints of its last stage only.
lm_is_at 2000 || lm_is_at 10000 || lm 1200 copying_full copying
lm_is_at 10000 || lm 2000 copying_full likeness
lm 10000 full
make "$work/lm_bundle" flamingo_jax.convert run --source="$work/lm" --out="$work/lm_bundle"
make "$work/lm_names/checkpoints/12500" flamingo_jax.train --config=experiments/lm_names.py --workdir="$work/lm_names" \
  --config.start="$work/lm_bundle" --config.datasets.text.path="$text/names_full/1.8.0"
make "$work/lm_names_bundle" flamingo_jax.convert run --source="$work/lm_names" --out="$work/lm_names_bundle"

# train NAME STEPS CONFIG DATASETS MORE: of the dictionary, with the features of FROM; train_new: a new model, of its trunk.
# bundle NAME
# evaluate NAME CONFIG DATA FEATURES PART
from=$work
train() {
  local data=() name
  for name in $4; do data+=("--config.datasets.$name.path=$images" "--config.datasets.$name.features=$from/features"); done
  make "$work/runs/$1/checkpoints/$2" flamingo_jax.train --config="$3" --workdir="$work/runs/$1" --config.steps="$2" \
    "${data[@]}" "${@:5}"
}
train_new() { train "$@" --config.lm="$work/lm_bundle" --config.vision="$from/trunk"; }
bundle() { make "$work/$1_bundle" flamingo_jax.convert run --source="$work/runs/$1" --out="$work/$1_bundle"; }
evaluate() {
  make "$work/evaluations/$1/$5/report.json" flamingo_jax.evaluate --config="$2" \
    --checkpoint="$work/runs/$1" --workdir="$work/evaluations/$1/$5" --config.data="$3" --config.features="$4" "${@:6}"
}
of_dictionary() { evaluate "$1" "experiments/evaluate/picture_dictionary.py:$2" "$images" "$from/features" "${@:2}"; }

for seed in 0 1 2; do
  train_new "words$seed" 1500 experiments/picture_words.py images --config.seed="$seed"
  of_dictionary "words$seed" words
done
bundle words0
train dictionary 2400 experiments/picture_dictionary.py images --config.start="$work/words0_bundle"
train meanings 1000 research/experiments/picture_meanings.py images --config.lm="$work/lm_names_bundle" --config.vision="$work/trunk"
bundle meanings
train languages 1500 research/experiments/picture_languages.py images --config.start="$work/meanings_bundle"
for name in dictionary languages; do
  for part in words tasks; do
    of_dictionary "$name" "$part"
  done
  # Of hundreds of names each question scores as many as it needs: on a CPU it should not wait for others.
  of_dictionary "$name" names --config.batch_size=1
  of_dictionary "$name" languages --config.episodes=300 --config.batch_size=4
done

# Scenes and clips go on from there.
bundle dictionary
make "$work/data/picture_scenes" data.picture_scenes.build --images="$images" --out="$work/data"
make "$work/data/picture_dictionary/clips" data.picture_dictionary.build --raw="$raw" --out="$work/data" --config=clips
clips=research/experiments/evaluate/picture_clips.py
for kind in scenes clips; do
  data=$work/data/picture_dictionary/clips/1.0.0 steps=1000 asks=$clips
  [ "$kind" = scenes ] && data=$work/data/picture_scenes/full/1.1.0 steps=500 asks=experiments/evaluate/picture_scenes.py
  make "$work/features_$kind/test.json" flamingo_jax.features --data="$data" --vision="$work/trunk" --out="$work/features_$kind"
  make "$work/runs/$kind/checkpoints/$steps" flamingo_jax.train --config="research/experiments/picture_$kind.py" --workdir="$work/runs/$kind" \
    --config.start="$work/dictionary_bundle" --config.datasets.$kind.path="$data" --config.datasets.$kind.features="$work/features_$kind"
  evaluate "$kind" "$asks" "$data" "$work/features_$kind" "$kind" --config.batch_size=4
done
evaluate dictionary "$clips" "$data" "$work/features_clips" clips --config.batch_size=4
evaluate dictionary "$clips:stills" "$data" "$work/features_clips" stills --config.batch_size=4

# Ablations: one data set of new words and one of names. ablate NAME STEPS
ablate() {
  train_new "$1" "$2" "research/experiments/ablations.py:$1" 'bind name'
  of_dictionary "$1" ablation --config.batch_size=1
}
for name in base no_gates every_2 every_4 all_images mlp pooling lm_trained p_next_half p_next_1 latents_16 latents_64; do
  ablate "$name" 400
done
ablate round_robin 800
from=$work/random
make "$from/trunk" flamingo_jax.convert efficientnet --random_seed=0 --image_size=160 "${measured[@]}" --out="$from/trunk"
for split in train,4 validation,1 test,1; do
  make "$from/features/${split%,*}.json" flamingo_jax.features --data="$images" --vision="$from/trunk" --out="$from/features" \
    --splits="${split%,*}" --views="${split#*,}"
done
ablate random_trunk 400

python -m research.results "$work" | tee "$work/tables.md"
