"""Makes metrics.json: small inputs of the metrics, and what the official code gives for them.

    python tests/golden/make_metrics.py ORIGINALS

It needs Java, the extra `parity`, pandas, and open-flamingo 2.0.1 and lmms-eval 0.7.3, both installed with --no-deps.
ORIGINALS holds clones of GT-Vision-Lab/VQA and antoine77340/RareAct under these last names.
"""

import contextlib
import csv
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests import metric_cases, metric_originals  # noqa: E402

VQA_COMMITS = {'vqa_2021': 'a013f00', 'vqa_2016': '458a8b2'}


def of_git(clone: pathlib.Path, commit: str, file: str) -> str:
    return subprocess.run(
        ['git', '-C', clone, 'show', f'{commit}:{file}'], capture_output=True, check=True, text=True
    ).stdout


def vqa_of_2016_and_2021(clone: pathlib.Path, predictions, references) -> dict[str, dict[str, float]]:
    found = {}
    for name, commit in VQA_COMMITS.items():
        source = of_git(clone, commit, 'PythonEvaluationTools/vqaEvaluation/vqaEval.py')
        scope: dict = {}
        exec(re.sub('print (".*?")', r'print(\1)', source), scope)  # It is Python 2.
        with contextlib.redirect_stdout(io.StringIO()):
            found[name] = metric_originals.by_vqa_eval(scope['VQAEval'], predictions, references)
    return found


def rareact(clone: pathlib.Path, predictions, references) -> float:
    actions = list(next(iter(predictions.values())))
    with tempfile.TemporaryDirectory() as folder:
        with open(pathlib.Path(folder, 'rareact.csv'), 'w', newline='') as file:
            rows = csv.writer(file)
            rows.writerow(['id', 'video_id', 'start', 'end', 'class_id', 'verb', 'noun', 'annotation'])
            for id, r in references.items():
                number = actions.index(f'{r["verb"]} {r["noun"]}')
                rows.writerow([id, r['video'], 0, 1, number, r['verb'], r['noun'], r['annotation']])
        np.save(pathlib.Path(folder, 'p.npy'), np.array([list(p.values()) for p in predictions.values()]))
        pathlib.Path(folder, 'compute_score.py').write_text(of_git(clone, 'HEAD', 'compute_score.py'))
        line = [sys.executable, 'compute_score.py', 'p.npy']
        done = subprocess.run(line, cwd=folder, capture_output=True, check=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Writes the file beside this one."""
    originals = pathlib.Path(sys.argv[1])
    made: dict = {}
    predictions, references = metric_cases.captions(25, 1)
    texts = [*metric_cases.CAPTIONS, *metric_cases.sentences()[::8], *predictions.values()]
    made['ptb_tokenizer'] = dict(texts=texts, words=metric_originals.ptb(texts))
    value, each = metric_originals.cider(predictions, references)
    made['cider'] = dict(predictions=predictions, references=references, value=value, each=each)
    predictions, references = metric_cases.answers(80, 1)
    each = vqa_of_2016_and_2021(originals / 'VQA', predictions, references)
    each['vqa_by_value'] = metric_originals.open_flamingo(predictions, references)
    each['vqa'] = metric_originals.open_flamingo(predictions, metric_originals.with_ids(references))
    each['vqa_evalai'] = metric_originals.evalai(predictions, references)
    made['vqa'] = dict(predictions=predictions, references=references, each=each)
    predictions, references = metric_cases.clips(60, 1)
    value = rareact(originals / 'RareAct', predictions, references)
    made['mwap'] = dict(predictions=predictions, references=references, value=value)
    text = json.dumps(made, ensure_ascii=False, separators=(',', ':')).replace('},"', '},\n"')
    pathlib.Path(__file__).with_name('metrics.json').write_text(text + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
