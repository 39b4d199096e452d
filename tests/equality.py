"""Compares converted models with their originals: runs the parity tests and prints the table of docs/checkpoints.md.

    pip install -e '.[test,parity]' && pip install --no-deps open-flamingo==2.0.1
    python -m tests.equality [TEST_FILE ...]

Each original is built with random weights of realistic scale, converted from the files that it writes, and compared in
float32 on the CPU. A difference is the largest one, relative to the largest logit (for a trunk: feature). A row shows
tests that fail or are skipped. `export` is the conversion back, bit for bit.
"""

import collections
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).parents[1]
FILES = tuple(f'tests/conversion/test_{name}.py' for name in ('vit', 'open_flamingo', 'idefics', 'llava'))


def main(files: list[str]) -> bool:
    """Prints the table; whether all tests passed."""
    rows: dict[str, dict[str, list]] = collections.defaultdict(lambda: collections.defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / 'report.xml'
        command = [sys.executable, '-m', 'pytest', *files, '-m', 'parity', f'--junitxml={report}']
        subprocess.run(command, cwd=ROOT, check=False)
        for case in ElementTree.parse(report).iter('testcase'):
            found = {p.get('name'): p.get('value') for p in case.iter('property')}
            failed = any(case.find(kind) is not None for kind in ('failure', 'error', 'skipped'))
            row = rows[found.get('row', 'others')]
            row['failed' if failed else 'passed'].append(case.get('name'))
            if 'difference' in found:
                row['differences'].append(float(found['difference']))
            if 'equal' in found:
                row[found['equal']].append(not failed)
    print('\n| model | largest difference | greedy | 3 beams | export | tests |')
    print('|---|---|---|---|---|---|')
    for name, row in rows.items():
        difference = f'{max(row["differences"]):.1e}' if row['differences'] else ''
        equal = [
            ('equal' if all(row[kind]) else 'NOT equal') if row[kind] else '' for kind in ('greedy', 'beams', 'export')
        ]
        tests = f'{len(row["passed"])} passed' + (f', {len(row["failed"])} FAILED' if row['failed'] else '')
        print(f'| {name} | {difference} | {" | ".join(equal)} | {tests} |')
    return not any(row['failed'] for row in rows.values())


if __name__ == '__main__':
    sys.exit(not main(sys.argv[1:] or list(FILES)))
