"""OpenFlamingo's own evaluation of VQAv2 and COCO, run in this process: open_flamingo/eval/evaluate.py, version 2.0.1.

Its loop, data sets, prompts' assembly and postprocessing are the package's. The package does not contain the class that
joins the loop to a model, so it is here, for an OpenFlamingo and for an IDEFICS: templates, image transform, padding
and `generate` are those of the originals. Two arguments of `generate` are added, which matter for random weights alone:
<EOS> ends an answer too, and tokens that are no text are never chosen.
"""

import argparse
import contextlib
import importlib
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import tokenizers
import torch
import transformers

from tests.metric_originals import file_of

NAMES = ('utils', 'rices', 'coco_metric', 'eval_datasets', 'eval_model', 'classification_utils')
NAMES += ('ok_vqa_utils', 'vqa_metric')
SPECIAL = ('<pad>', '<s>', '</s>', '<unk>')
AROUND = ('<fake_token_around_image>', '<image>')  # Of IDEFICS, after all others.


def load():
    """The module evaluate.py. Its imports are by file name, so its folder is on the path meanwhile."""
    folder = str(file_of('open_flamingo', 'eval'))
    names = {*NAMES, 'evaluate'}
    others = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}  # Such as the library `evaluate`.
    sys.path.insert(0, folder)
    try:
        return importlib.import_module('evaluate')
    finally:
        sys.path.remove(folder)
        for name in names & sys.modules.keys():
            del sys.modules[name]
        sys.modules.update(others)


def write_tokenizer(file: pathlib.Path, size: int, texts: Sequence[str], extra: Sequence[str] = ()) -> None:
    """A byte-level BPE of `size` tokens, trained on texts. SPECIAL come first, and `extra` after them all."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIAL[3]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=min(size, 1000),
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fields = json.loads(tokenizer.to_str())
    vocabulary = fields['model']['vocab']
    # Words that no text has fill the vocabulary.
    vocabulary |= {f'word {i}': i for i in range(len(vocabulary), size)}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(fields))
    tokenizer.add_special_tokens(list(extra))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
    tokenizer.save(str(file))


class OpenFlamingo:
    """An OpenFlamingo as its suite asks it."""

    def __init__(self, model, lm: pathlib.Path, image_size: int):
        """lm: the folder with its tokenizer."""
        import open_clip

        self.model, self.device = model, 'cpu'
        clip = dict(mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD)
        self.transform = open_clip.image_transform(image_size, is_train=False, **clip)
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(lm / 'tokenizer.json'), bos_token='<s>', eos_token='</s>', unk_token='<unk>'
        )
        self.tokenizer.add_special_tokens({'additional_special_tokens': ['<|endofchunk|>', '<image>']})
        self.tokenizer.add_special_tokens({'pad_token': '<PAD>'})
        self.tokenizer.padding_side = 'left'
        self.end, self.image = self.tokenizer.convert_tokens_to_ids(['<|endofchunk|>', '<image>'])
        self.never = [1, self.image, self.tokenizer.pad_token_id]

    def get_vqa_prompt(self, question: str, answer: str | None = None) -> str:
        """A question, with its answer in an example."""
        return f'<image>Question:{question} Short answer:' + ('' if answer is None else f'{answer}<|endofchunk|>')

    def get_caption_prompt(self, caption: str | None = None) -> str:
        """An image, with its caption in an example."""
        return '<image>Output:' + ('' if caption is None else f'{caption}<|endofchunk|>')

    def get_outputs(self, batch_text, batch_images, min_generation_length, max_generation_length, **how) -> list[str]:
        """The texts that the model writes after each prompt."""
        images = [torch.stack([self.transform(image) for image in row]) for row in batch_images]
        x = self.tokenizer(batch_text, padding='longest', return_tensors='pt')
        with torch.inference_mode():
            out = self.model.generate(
                torch.stack(images)[:, :, None],
                x['input_ids'],
                attention_mask=x['attention_mask'],
                min_new_tokens=min_generation_length,
                max_new_tokens=max_generation_length,
                eos_token_id=[2, self.end],
                suppress_tokens=self.never,
                pad_token_id=self.tokenizer.pad_token_id,
                do_sample=False,
                **how,
            )
        return self.tokenizer.batch_decode(out[:, x['input_ids'].shape[1] :], skip_special_tokens=True)


class Recorder:
    """What the suite asks in place of a model: it notes each prompt, and answers nothing.

    prompts: id of a question -> its prompt.
    """

    def __init__(self):
        self.device, self.prompts, self.sent = 'cpu', {}, []

    get_vqa_prompt, get_caption_prompt = OpenFlamingo.get_vqa_prompt, OpenFlamingo.get_caption_prompt

    def get_hateful_memes_prompt(self, text: str, label: str | None = None) -> str:
        """A meme, with its label in an example."""
        asked = f"<image>is an image with: '{text}' written on it. Is it hateful? Answer:"
        return asked + ('' if label is None else f'{label}<|endofchunk|>')

    def get_outputs(self, batch_text, batch_images, **_) -> list[str]:
        """Empty answers."""
        self.sent += batch_text
        return [''] * len(batch_text)

    def get_rank_classifications(self, batch_text, batch_images, all_class_names, **_):
        """Equal likelihoods."""
        self.sent += batch_text
        return torch.zeros(len(batch_text), len(all_class_names))


class Idefics:
    """An IDEFICS, asked by the same suite in the format of its own processor."""

    def __init__(self, model, folder: pathlib.Path, image_size: int):
        self.model, self.device = model, 'cpu'
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / 'tokenizer.json'),
            bos_token='<s>',
            eos_token='</s>',
            pad_token='<pad>',
            unk_token='<unk>',
            padding_side='left',
            additional_special_tokens=list(AROUND),
        )
        images = transformers.IdeficsImageProcessorPil(image_size=image_size)
        self.processor, self.tokenizer = transformers.IdeficsProcessor(images, fast), fast
        self.never = [0, 1, *fast.convert_tokens_to_ids(list(AROUND))]

    def get_vqa_prompt(self, question: str, answer: str | None = None) -> str:
        """A question, with its answer in an example."""
        return f'<image>Question:{question} Answer:' + ('' if answer is None else f' {answer}')

    def get_caption_prompt(self, caption: str | None = None) -> str:
        """An image, with its caption in an example."""
        return '<image>Caption:' + ('' if caption is None else f' {caption}')

    def get_outputs(self, batch_text, batch_images, min_generation_length, max_generation_length, **how) -> list[str]:
        """The texts that the model writes after each prompt."""
        prompts = []
        for text, images in zip(batch_text, batch_images, strict=True):
            first, *texts = text.split('<image>')
            prompts.append([first] * bool(first))
            for image, after in zip(images, texts, strict=True):
                prompts[-1] += [image, after]
        x = self.processor(text=prompts, return_tensors='pt', add_end_of_utterance_token=False)
        with torch.inference_mode():
            out = self.model.generate(
                **x,
                min_new_tokens=min_generation_length,
                max_new_tokens=max_generation_length,
                eos_token_id=2,
                suppress_tokens=self.never,
                pad_token_id=0,
                do_sample=False,
                **how,
            )
        return self.tokenizer.batch_decode(out[:, x['input_ids'].shape[1] :], skip_special_tokens=True)


def write_vqav2(folder: pathlib.Path, queries: int, support: int, size: tuple[int, int] = (60, 45)) -> list[str]:
    """VQAv2's files with images of coloured shapes; returns all texts."""
    rng, texts = np.random.default_rng(7), []
    colours, shapes = 'red green blue black white grey'.split(), 'circle square stripe cross'.split()
    for part, number, first in (('train2014', support, 1), ('val2014', queries, 10**5)):
        questions, annotations = [], []
        (folder / part).mkdir(parents=True)
        for i in range(number):
            image = first + i
            pixels = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            drawn = PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BILINEAR)
            drawn.save(folder / part / f'COCO_{part}_{image:012d}.jpg', quality=90)
            colour, shape = colours[rng.integers(6)], shapes[rng.integers(4)]
            question = [
                f'What colour is the {shape}?',
                f'Is there a {colour} {shape}?',
                f'How many {shape}s are to the left of the {colour} one?',
            ][rng.integers(3)]
            answer = str([colour, 'yes', int(rng.integers(5)), f'{colour} and {shape}'][rng.integers(4)])
            texts += [f'Question:{question} Short answer: Answer: {answer}', f'Output: Caption: a {colour} {shape}']
            questions.append(dict(question_id=10 * image, image_id=image, question=question))
            given = [dict(answer=answer, answer_confidence='yes', answer_id=j + 1) for j in range(10)]
            about = dict(question_type='', answer_type='other', multiple_choice_answer=answer)
            annotations.append(dict(question_id=10 * image, image_id=image, answers=given) | about)
        file = folder / f'v2_OpenEnded_mscoco_{part}_questions.json'
        file.write_text(json.dumps(dict(questions=questions)))
        (folder / f'v2_mscoco_{part}_annotations.json').write_text(json.dumps(dict(annotations=annotations)))
    return texts


def write_coco(folder: pathlib.Path) -> None:
    """Karpathy's file of the images that `write_vqav2` wrote, with captions."""
    rng, images = np.random.default_rng(8), []
    for part, split in (('train2014', 'train'), ('val2014', 'test')):
        for file in sorted((folder / part).iterdir()):
            colour = ('red', 'green', 'blue')[rng.integers(3)]
            sentences = [dict(raw=f'a {colour} square and {n} stripes') for n in rng.permutation(5)]
            cocoid = int(file.stem.split('_')[-1])
            images.append(dict(filename=file.name, filepath=part, split=split, cocoid=cocoid, sentences=sentences))
    (folder / 'dataset_coco.json').write_text(json.dumps(dict(images=images)))


def write_memes(folder: pathlib.Path, queries: int, support: int) -> None:
    """Memes of Hateful Memes: train.jsonl and dev_seen.jsonl, with images that all look alike."""
    (folder / 'img').mkdir()
    for split, number, first in (('train', support, 1000), ('dev_seen', queries, 2000)):
        ids = range(first, first + number)
        for id in ids:
            PIL.Image.new('RGB', (8, 8), (id % 256, 0, 0)).save(folder / 'img' / f'{id:05d}.png')
        lines = [dict(id=id, img=f'img/{id:05d}.png', label=id % 2, text=f'look at "this" {id}') for id in ids]
        (folder / f'{split}.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def arguments(folder: pathlib.Path, batch_size: int, support: int) -> argparse.Namespace:
    """The command's arguments for the files in a folder."""
    args = dict(model='open_flamingo', num_samples=-1, batch_size=batch_size, query_set_size=support, rices=False)
    args |= dict(rank=0, world_size=1)
    for side, part in (('train', 'train2014'), ('test', 'val2014')):
        args[f'vqav2_{side}_image_dir_path'] = str(folder / part)
        args[f'vqav2_{side}_questions_json_path'] = str(folder / f'v2_OpenEnded_mscoco_{part}_questions.json')
        args[f'vqav2_{side}_annotations_json_path'] = str(folder / f'v2_mscoco_{part}_annotations.json')
    args |= dict(coco_train_image_dir_path=str(folder / 'train2014'), coco_val_image_dir_path=str(folder / 'val2014'))
    args |= dict(coco_karpathy_json_path=str(folder / 'dataset_coco.json'), coco_annotations_json_path='')
    args |= dict(hateful_memes_image_dir_path=str(folder / 'img'), classification_prompt_ensembling=False)
    for side, split in (('train', 'train'), ('test', 'dev_seen')):
        args[f'hateful_memes_{side}_annotations_json_path'] = str(folder / f'{split}.jsonl')
    return argparse.Namespace(**args)


@contextlib.contextmanager
def alone(folder: pathlib.Path):
    """The suite gathers over processes: a group of one."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder / "group"}', rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def prompts_sent(recorder: Recorder, folder: pathlib.Path, kind: str, shots: int, support: int) -> dict[str, list[str]]:
    """Asks a recorder; returns the examples that were drawn for each question, by their ids, as `run` does."""
    _, drawn = run(recorder, folder, kind, shots, 8, support)
    recorder.prompts = dict(zip(drawn, recorder.sent, strict=True))
    return drawn


def run(
    model: Any,
    folder: pathlib.Path,
    kind: str,
    shots: int,
    batch_size: int,
    support: int,
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Its answers by question, and the examples that it drew for each question, by their questions.

    Args:
      kind: 'vqav2', 'coco' or 'hateful_memes', whose answers are not given.
      support: the number of examples to draw from.
    """
    suite, drawn, batches, answers = load(), [], [], {}
    sample, loader = suite.utils.sample_batch_demos_from_query_set, suite.utils.prepare_eval_samples
    ids = dict(vqav2=('question_id', 'answer'), coco=('image_id', 'caption'), hateful_memes=('id', ''))
    key, answer = ids[kind]

    def noted_sample(*args):
        drawn.append(sample(*args))
        return drawn[-1]

    def noted_loader(*args):
        for batch in loader(*args):
            batches.append(batch[key])
            yield batch

    def read(file, *_, **__):
        answers.update({str(one[key]): one[answer] for one in json.loads(pathlib.Path(file).read_text())})
        return dict(CIDEr=0.0) if kind == 'coco' else 0.0

    suite.utils.sample_batch_demos_from_query_set = noted_sample
    suite.utils.prepare_eval_samples = noted_loader
    suite.compute_vqa_accuracy = read
    suite.compute_cider = lambda result_path, annotations_path: read(result_path)
    args = arguments(folder, batch_size, support)
    with alone(folder), contextlib.chdir(folder):
        if kind == 'vqav2':
            suite.evaluate_vqa(args, model, num_shots=shots, dataset_name='vqav2')
        elif kind == 'hateful_memes':
            suite.evaluate_classification(args, model, num_shots=shots, dataset_name=kind)
        else:
            suite.evaluate_captioning(args, model, num_shots=shots, dataset_name='coco')
    # An example of a caption has no id: its image does.
    ids = {
        str(query): [str(example[key]) for example in examples]
        for some, demos in zip(batches, drawn, strict=True)
        for query, examples in zip(some, demos, strict=True)
    }
    return answers, ids
