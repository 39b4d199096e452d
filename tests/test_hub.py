"""Paths at hf://, against a server on the loopback that speaks the Hub's protocol."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import constants

from flamingo_jax import hub
from flamingo_jax.checkpoints import bundle, converted
from flamingo_jax.conversion.converted import Converted
from flamingo_jax.errors import UserError
from flamingo_jax.files import as_path
from flamingo_jax.inference.pretrained import load, tokenizer_of
from flamingo_jax.model.flamingo import Flamingo
from tests import hub_server

ROOT = pathlib.Path(__file__).parents[1]
BUNDLE = ROOT / 'experiments' / 'lm_names'


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub, which this process knows as the only one."""
    with hub_server.serving() as served:
        monkeypatch.setattr(constants, 'ENDPOINT', served.address)
        template = f'{served.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
        monkeypatch.setenv('HF_TOKEN', 'hf_none')
        hub.fetched.cache_clear()
        yield served
        hub.fetched.cache_clear()


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*') if file.is_file()}


def test_a_bundle_is_pushed_and_loads_from_there_also_without_the_network(served, monkeypatch):
    address = hub.push(str(BUNDLE), 'hf://me/names')
    assert served.repositories['me/names']['main'] == files_of(BUNDLE)
    assert address == f'{served.address}/me/names/commit/{served.commit_of("me/names", "main")}'
    loaded, expected = load('hf://me/names'), load(BUNDLE)
    assert loaded.checksums == expected.checksums and loaded.config == expected.config
    hub.fetched.cache_clear()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    before = len(served.asked)
    assert tokenizer_of('hf://me/names').encode('a dog') == expected.tokenizer.encode('a dog')
    assert len(served.asked) == before


def test_a_download_that_is_cut_goes_on_from_there(served, monkeypatch):
    monkeypatch.setattr(constants, 'DOWNLOAD_CHUNK_SIZE', 2**16)
    weights = np.random.default_rng(0).bytes(3 * 2**20)
    served.add('them/model', {'config.json': b'{}', 'model.safetensors': weights}, 'main')
    served.cut.add('model.safetensors')
    here = pathlib.Path(hub.fetched('hf://them/model'))
    assert (here / 'model.safetensors').read_bytes() == weights
    asked = [one for one in served.asked if one.startswith('GET') and 'model.safetensors' in one]
    begun = int(asked[-1].rpartition('bytes=')[2].split('-')[0])
    assert len(asked) == 2 and 0 < begun <= len(weights) // 2


def test_only_what_is_wanted_is_downloaded_and_the_card_names_its_commit(served, tmp_path, pretrained):
    old = {'config.json': b'old'}
    files = {'config.json': b'{}', 'a-00001-of-00002.safetensors': b'1', 'a-00002-of-00002.safetensors': b'2'}
    files |= {'pytorch_model.bin': b'the same', 'original/consolidated.pth': b'the same', 'clip/model.pt': b'3'}
    commit = served.add('them/model', files, 'main', 'v2')
    served.add('them/model', old, 'v1')
    assert files_of(pathlib.Path(hub.fetched('hf://them/model@v1'))) == old
    every = {name: files[name] for name in files if name == 'config.json' or name.endswith('.safetensors')}
    assert files_of(pathlib.Path(hub.fetched('hf://them/model'))) == every
    assert pathlib.Path(hub.fetched('hf://them/model/clip/model.pt')).read_bytes() == b'3'
    first = pathlib.Path(hub.fetched('hf://them/model@v2/a-00001-of-00002.safetensors'))
    assert first.with_name('a-00002-of-00002.safetensors').read_bytes() == b'2'

    def read(source, empty, progress):
        assert files_of(pathlib.Path(source)).items() >= every.items()  # A file that was asked for is there, too.
        card = dict(title='A model', description='Tiny.')
        return Converted(pretrained.config, pretrained.params, pretrained.tokenizer, card, 'text')

    converted.write(read, 'hf://them/model@v2', str(tmp_path / 'bundle'))
    card = (tmp_path / 'bundle' / 'README.md').read_text()
    assert f'Converted from them/model (revision {commit})' in card and 'base_model:\n- "them/model"' in card
    assert isinstance(load(tmp_path / 'bundle').model, Flamingo)


def test_what_cannot_be_had_is_told_with_the_remedy(served, monkeypatch):
    served.add('them/model', {'config.json': b'{}'}, 'main')
    served.add('them/gated', {'config.json': b'{}'}, 'main')
    served.gated.add('them/gated')
    for path, said in {
        'hf://them/other': 'no them/other, or it is private.*HF_TOKEN',
        'hf://them/gated': 'terms accepted',
        'hf://them/model@v9': "no revision 'v9'",
        'hf://them/model/clip': "no 'clip'. It has config.json",
        'hf://model': 'not of the form hf://OWNER/NAME',
        'hf://them/model/../x': 'not of the form',
    }.items():
        with pytest.raises(UserError, match=said):
            hub.fetched(path)
    with pytest.raises(UserError, match='read as a model, and not written'):
        as_path('hf://me/run')
    with pytest.raises(FileNotFoundError, match='neither a bundle'):
        load('hf://them/model/config.json')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(UserError, match='hf://them/another could not be read: .*goes on from there'):
        hub.fetched('hf://them/another')
    with pytest.raises(UserError, match='not a bundle|could not be read'):
        bundle.read('hf://them/another')


@pytest.mark.long
def test_the_commands_push_and_generate(served, tmp_path):
    environment = os.environ | dict(HF_ENDPOINT=served.address, HF_HOME=str(tmp_path / 'home'), HF_HUB_DISABLE_XET='1')

    def run(*line):
        line = [sys.executable, '-m', *line]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert '/me/names/commit/' in run('flamingo_jax.convert', 'push', f'--source={BUNDLE}', '--out=hf://me/names')
    text = ['--text=a dog :', '--max_new_tokens=4']
    expected = run('flamingo_jax.generate', f'--checkpoint={BUNDLE}', *text)
    assert run('flamingo_jax.generate', '--checkpoint=hf://me/names', *text) == expected
