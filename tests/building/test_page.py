"""Pages -> texts and images in reading order."""

import time
import unicodedata

import numpy as np
import pytest

from flamingo_jax.building import duplicates, filters, texts
from flamingo_jax.building.page import Link, PageError, Text, decode, join, read_page
from flamingo_jax.building.rules import DEFAULT, OBELICS, PageRules
from flamingo_jax.inputs.rows import Chunk, Interleaved, RowFormat
from tests.building.web import PROSE, story
from tests.mutations import NUMBERS

ENGLISH = filters.Language('en', 0.0, True)
TURKISH = (
    'Resmi açmak için Dosya menüsünden Aç komutunu seçin. Açılan pencerede istediğiniz dosyayı bulup çift tıklayın. '
    'Resmin boyutunu değiştirmek isterseniz Görüntü menüsündeki Ölçekle komutunu kullanabilirsiniz.'
)


def shown(body: str, url: str = 'http://a.b/c/d.html', **rules) -> list[str]:
    """What a page shows: texts as they are, images as their URLs in brackets."""
    page = read_page(f'<meta charset=utf-8><body>{body}'.encode(), url, rules=PageRules(**rules))
    return [node.text if isinstance(node, Text) else f'[{node.url}]' for node in page.nodes]


def lost(body: str) -> list[tuple[str, str]]:
    page = read_page(f'<meta charset=utf-8><body>{body}<p>rest'.encode(), 'http://a.b/')
    return [(one.rule, one.excerpt) for one in page.dropped]


def test_reading_order():
    body = """<h1>Bread</h1><p>Mix <b>flour</b> and<br>water.</p><figure><img src=../dough.jpg>
      <figcaption>The dough</figcaption></figure><ul><li>one<li>two</ul><a href=x><img src="//x.y/a.png"></a>last"""
    assert shown(body) == [
        'Bread',
        'Mix flour and\nwater.',
        '[http://a.b/dough.jpg]',
        'The dough',
        'one',
        'two',
        '[http://x.y/a.png]',
        'last',
    ]


def test_kinds_and_what_stands_apart():
    page = read_page(
        b'<h2>Head</h2><div>a</div><div>b</div><p>c</p><div class="wp-caption-text">d</div>', 'http://a.b/'
    )
    assert [(node.kind, node.apart) for node in page.nodes] == [
        ('heading', True), ('text', True), ('text', False), ('text', True), ('caption', True),
    ]  # fmt: skip


def test_an_image_within_a_sentence_divides_one_block():
    page = read_page(b'<p>Press <img src=a.png> to go on.</p><p>Then wait.</p>', 'http://a.b/')
    first, _, second, third = page.nodes
    assert first.block == second.block != third.block


def test_the_furniture_of_a_page_is_left_out_and_told():
    body = '<nav>Home About</nav><div id=menu>Menu</div><div class="x footer">Imprint</div><form><p>kept</p>'
    body += '<select><option>1</select></form><div role=search>Find</div><p hidden>no</p><script>x()</script>'
    assert shown(body) == ['kept']
    assert lost(body) == [
        ('tag_nav', 'Home About'),
        ('tag_furniture', 'Menu'),
        ('tag_footer', 'Imprint'),
        ('tag_select', '1'),
        ('tag_role', 'Find'),
        ('tag_hidden', 'no'),
    ]


@pytest.mark.parametrize(
    'within',
    ['<math><mi>E</mi></math>', '<button>Copy</button>', '<svg><title>x</title></svg>', '<select><option>1</select>']
    + ['<label>Name</label>', '<audio>no</audio>', '<span hidden>no</span>', '<i aria-hidden=true>no</i>']
    + ['<span style="visibility: hidden">no</span>', '<canvas>no</canvas>', '<meter>1</meter>'],
)
def test_what_is_left_out_of_a_line_does_not_end_it(within):
    [line] = shown(f'<p>The energy is {within} and it is conserved.')
    assert line == 'The energy is and it is conserved.'


MATHML = (
    '<math><mfrac><mn>1</mn><msqrt><mi>x</mi></msqrt></mfrac><mo>≤</mo><msubsup><mi>a</mi><mi>i</mi><mn>2</mn></msubsup>'
    '<mroot><mi>y</mi><mn>3</mn></mroot><mi>sin</mi><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr></mtable></math>'
)
TEX = '<annotation encoding="application/x-tex">E=mc^2</annotation>'


@pytest.mark.parametrize(
    'html, formula',
    [
        (f'<math><semantics><mi>E</mi>{TEX}</semantics></math>', '$E=mc^2$'),
        ('<math alttext="E=mc^2" display=block><mi>E</mi></math>', '$$E=mc^2$$'),
        ('<script type="math/tex">E=mc^2</script>', '$E=mc^2$'),
        ('<span class=MathJax>E=mc2</span><script type="math/tex; mode=display">E=mc^2</script>', '$$E=mc^2$$'),
        (
            f'<span class=katex><span class=katex-mathml><math><semantics><mi>E</mi>{TEX}</semantics></math></span>'
            '<span class=katex-html aria-hidden=true>E=mc2</span></span>',
            '$E=mc^2$',
        ),
        (
            '<span style="display: none"><math alttext="no"></math></span>'
            r'<img class=mwe-math-fallback-image-inline alt="{\displaystyle E=mc^{2}}" src=a.svg>',
            '$E=mc^{2}$',
        ),
        (MATHML, r'$\frac{1}{\sqrt{x}}\le {a}_{i}^{2}\sqrt[3]{y}\mathrm{sin}\begin{matrix}1 & 2\end{matrix}$'),
    ],
)
def test_formulas_by_choice(html, formula):
    assert shown(f'<p>The energy is {html} and it is kept.', text_formulas=True) == [
        f'The energy is {formula} and it is kept.'
    ]
    rules = PageRules(text_formulas=True)
    page = read_page(f'<p>The energy is {html} and it is kept.<p>{html}'.encode(), 'http://a.b/', rules=rules)
    assert [node.kind for node in page.nodes] == ['text', 'formula']
    assert not any(filters.broken_by_text(node, ENGLISH, rules) for node in page.nodes)


def test_code_by_choice():
    body = '<p>Say</p><pre class="lang-python"><code>if x:\n    print(x)  # &lt;b>\n</code></pre><p>to it</p>'
    assert shown(body) == ['Say', 'to it']
    assert shown(body, text_code=True) == ['Say', '```python\nif x:\n    print(x)  # <b>\n```', 'to it']
    rules = PageRules(text_code=True)
    page = read_page(body.encode(), 'http://a.b/', rules=rules)
    assert [filters.broken_by_text(node, ENGLISH, rules) for node in page.nodes if node.kind == 'code'] == [None]


def test_tables_by_choice():
    table = '<table><caption>Sizes</caption><tr><th>Name<th>Bits<tr><td>a|b<td><b>8</b><tr><td colspan=2>end</table>'
    assert shown(table) == ['Sizes']
    assert shown(f'{table}<table><tr><td><p>Laid out</p><td>no</table>', text_tables=True) == [
        'Sizes', '| Name | Bits |\n| --- | --- |\n| a\\|b | 8 |\n| end |  |', 'Laid out',
    ]  # fmt: skip


def test_alternative_texts_by_choice():
    body = '<p>one <img src=a.png alt="A red door."> two</p>'
    assert shown(body) == ['one', '[http://a.b/c/a.png]', 'two']
    assert shown(body, image_alt=True) == ['one', '[http://a.b/c/a.png]', 'A red door.', 'two']


def test_prose_in_tables_that_lay_out_a_page():
    assert shown(f'<table><tr><td>Home<td>{PROSE} <b>More.</b><td>12</table>') == [f'{PROSE} More.']
    assert shown('<table role=presentation><tr><td>Short.<td>12</table>') == ['Short.', '12']
    assert lost(f'<table><tr><td>Some <b>name</b><td>{PROSE}</table>') == [('cell_min_words', 'Some name')]


def test_what_is_hidden_from_readers_aloud_is_shown_if_it_is_an_image():
    assert shown('<p>one<a aria-hidden=true>no<img src=a.png></a>two') == ['one', '[http://a.b/c/a.png]', 'two']


def test_a_date_is_a_line_of_its_own():
    for name in ('date', 'entry-date published', 'post_date'):
        assert lost(f'<div class="{name}">January <b>3</b></div>') == [('tag_date', 'January 3')]
    for name in ('update', 'candidate-profile', 'validated'):
        assert shown(f'<div class={name}>Ada Lovelace</div>') == ['Ada Lovelace']
    assert shown('<div class=date><p>Some prose</p><span><img src=a.png></span></div>') == [
        'Some prose',
        '[http://a.b/c/a.png]',
    ]


def test_elements_that_html_does_not_have_are_within_a_line():
    assert shown('<p>Of <notr>al-Sufi</notr>, <x-name>an astronomer</x-name>.</p>') == ['Of al-Sufi, an astronomer.']


def test_tables_keep_prose_and_images():
    assert shown('<table><tr><td>12<td><p>Some prose</p><td><img src=a.png></table>') == [
        'Some prose',
        '[http://a.b/c/a.png]',
    ]


@pytest.mark.parametrize(
    'tag, url',
    [
        ('<img src="data:image/gif;base64,R0" data-src="/real.jpg">', 'http://a.b/real.jpg'),
        ('<img srcset="/1.jpg 1x, /2.jpg 2x" data-original=/3.jpg>', 'http://a.b/3.jpg'),
        ('<img src="/with space.jpg">', 'http://a.b/with%20space.jpg'),
        ('<img src="/ä.jpg#part">', 'http://a.b/%C3%A4.jpg'),
        ('<img src="https://München.DE:443/ä.jpg">', 'https://xn--mnchen-3ya.de/%C3%A4.jpg'),
        ('<img src="HTTP://Me:Secret@Example.COM:80/A.jpg">', 'http://Me:Secret@example.com/A.jpg'),
        ('<img src="http://example.com:443/a.jpg">', 'http://example.com:443/a.jpg'),
        ('<img src="http://[2001:DB8::1]:8080/a.jpg">', 'http://[2001:db8::1]:8080/a.jpg'),
    ],
)
def test_addresses_of_images(tag, url):
    assert shown(f'{tag}<p>text') == [f'[{url}]', 'text']


def test_an_address_is_written_in_one_way():
    assert join('http://a.b/', '/\ud800.png') == ''  # Half a letter, which nothing can write.
    for url in ('https://xn--mnchen-3ya.de/%C3%A4.jpg', 'http://[2001:db8::1]:8080/a?b=c%20d', 'http://me@a.b/'):
        assert join(url, url) == url


@pytest.mark.parametrize(
    'html, url',
    [
        ('<head><base href="http://x.y/z/"></head><body><img src=a.jpg>', 'http://x.y/z/a.jpg'),
        (
            '<head><base target=_blank><base href="../e/"><base href=/no/></head><body><img src=a.jpg>',
            'http://a.b/e/a.jpg',
        ),
        ('<body><img src=a.jpg><base href="http://x.y/z/">', 'http://x.y/z/a.jpg'),
        ('<head><base href="http://[x"></head><body><img src=a.jpg>', 'http://a.b/c/a.jpg'),
    ],
)
def test_links_start_from_the_base_of_the_page(html, url):
    assert [node.url for node in read_page(html.encode(), 'http://a.b/c/d.html').nodes] == [url]


@pytest.mark.parametrize(
    'tag, rule',
    [
        ('<img alt=x>', 'image_without_source'),
        ('<img src="data:image/png;base64,AAAA">', 'image_inline'),
        ('<img src="javascript:x()">', 'image_url'),
        ('<img src="file:///etc/passwd">', 'image_url'),
        ('<img src="http://a.b:99999/c">', 'image_url'),
        ('<img src="http://[::1/c">', 'image_url'),
        ('<img src="http://ä..b/c">', 'image_url'),
        ('<img src="http://a℀b/c">', 'image_url'),
    ],
)
def test_images_without_an_address_are_told(tag, rule):
    assert [found for found, _ in lost(tag)] == [rule]


@pytest.mark.parametrize(
    'data, declared, text, wrong',
    [
        ('Fußgänger'.encode(), '', 'Fußgänger', False),
        ('Fußgänger'.encode(), 'iso-8859-1', 'Fußgänger', True),
        ('Fußgänger'.encode('latin-1'), 'iso-8859-1', 'Fußgänger', False),
        ('Fußgänger'.encode('latin-1') * 9, 'utf-8', 'Fußgänger' * 9, True),
        ('これは日本語の文章です。'.encode('shift_jis') * 4, 'shift_jis', 'これは日本語の文章です。' * 4, False),
        ('①㈱髙島屋～の製品'.encode('cp932'), 'shift_jis', '①㈱髙島屋～の製品', False),
        (
            '日本語のページです。①電源を入れます。㈱例'.encode('cp932') * 9,
            '',
            '日本語のページです。①電源を入れます。㈱例' * 9,
            False,
        ),
        ('똠방각하와 펲시콜라'.encode('cp949'), 'euc-kr', '똠방각하와 펲시콜라', False),
        ('朱镕基，€'.encode('gb18030'), 'gb2312', '朱镕基，€', False),
        ('香港嘅恒生銀行裏'.encode('big5hkscs'), 'big5', '香港嘅恒生銀行裏', False),
        ('ภาษา “ไทย”'.encode('cp874'), 'tis-620', 'ภาษา “ไทย”', False),
        ('これは日本語の文章です。'.encode('euc-jp') * 4, '', 'これは日本語の文章です。' * 4, False),
        ('\ufeffЭто'.encode('utf-16-le'), '', 'Это', False),
        (b'<meta charset=windows-1251>' + 'Это'.encode('cp1251'), '', '<meta charset=windows-1251>Это', False),
        ('é'.encode(), 'no-such-charset', 'é', True),
        ('これは日本語'.encode('iso2022_jp'), 'iso-2022-jp', 'これは日本語', False),
        ('これは日本語'.encode(), 'iso-2022-jp', 'これは日本語', True),
        (b'<meta charset=iso-2022-jp>' + '日本'.encode('iso2022_jp'), '', '<meta charset=iso-2022-jp>日本', False),
        ('<p>Это'.encode('utf-16-be'), 'utf-16be', '<p>Это', False),
        (b'<meta charset=utf-16>even', '', '<meta charset=utf-16>even', False),
        ('<meta charset=unicode>é'.encode(), 'utf-16', '<meta charset=unicode>é', False),
    ],
)
def test_charsets(data, declared, text, wrong):
    found, told = decode(data, declared)
    assert (found, bool(told)) == (text, wrong)


def test_control_characters_are_taken_out_and_told():
    body = '<p>a\x01b\x7fc\u202ed\ufeff e\xad</p>'
    assert shown(body)[0] == 'abcd e'
    assert ('control_characters', "'abcd e'") in lost(body)


@pytest.mark.parametrize('mark', ['<image>', '<EOC>', '<|endoftext|>', '<|endofchunk|>', '</s>'])
def test_tags_written_in_a_text_never_become_tags(mark, tokenizer):
    escaped = mark.replace('<', '&lt;')
    page = read_page(f'<p>{PROSE} {escaped} {PROSE}</p>'.encode(), 'http://a.b/')
    [node] = page.nodes
    assert mark in node.text
    assert filters.broken_by_text(node, ENGLISH, DEFAULT) == ('text_marks', None)
    # Even if such a text were stored, it would be read as text.
    row = Interleaved.of([Chunk(None, [mark], [1.0])], tokenizer, None, np.random.default_rng(0), RowFormat(32, 0))
    assert not row.phi.any()
    assert (row.tokens == tokenizer.eoc).sum() == 1  # The end of the chunk itself.


def test_a_page_nested_a_million_deep_and_one_with_10_000_images_end_soon():
    begin = time.monotonic()
    for body, rule in (
        ('<div>' * 1_000_000 + 'x', 'page_max_nodes'),
        ('<img src=a.png>' * 10_000, 'page_max_images'),
    ):
        with pytest.raises(PageError) as error:
            read_page(body.encode(), 'http://a.b/', rules=PageRules(page_max_nodes=20_000))
        assert error.value.rule == rule
    deep = read_page(('<div>' * 5_000 + f'<p>{PROSE}').encode(), 'http://a.b/', rules=PageRules(page_max_nodes=0))
    assert [node.text for node in deep.nodes] == [PROSE]
    assert time.monotonic() - begin < 600  # Not forever.


@pytest.mark.parametrize(
    'html, rule',
    [
        (b'', 'page_empty'),
        (b'<body></body>', 'page_empty'),
        (b'x' * 10_000_001, 'page_max_bytes'),
        (b'<meta name=robots content="index, NOAI"><p>text', 'page_opt_out'),
        (b'<meta name=tdm-reservation content=1><p>text', 'page_opt_out'),
        (b'<meta name=robots content=all><meta name=ROBOTS content="none, noimageai"><p>text', 'page_opt_out'),
        (b'<meta name=tdm-reservation content=0><meta name=tdm-reservation content=1><p>text', 'page_opt_out'),
        (b'<meta name=CCBot content=nofollow><p>text', 'page_opt_out'),
        (b'<p>text<p><meta name=gptbot content=noindex>', 'page_opt_out'),
        (b'<meta http-equiv=X-Robots-Tag content=noai><p>text', 'page_opt_out'),
    ],
)
def test_pages_that_are_not_read(html, rule):
    with pytest.raises(PageError) as error:
        read_page(html, 'http://a.b/')
    assert error.value.rule == rule


def test_measures_of_texts():
    assert texts.number_of_words("Don't look at 3 dogs.") == 5
    assert texts.number_of_words('これは日本語です') == 4
    assert texts.special_ratio('ab 12') == 0.4
    assert texts.word_repetition('a b c d e ' * 3, 5) == 1.0
    assert texts.word_repetition(story(1), 5) == 0.0
    # By hand: of 'abababab', six runs of three characters, aba and bab three times each; sqrt(2) rounds down to 1.
    assert texts.character_repetition('abababab', 3) == 0.5
    assert texts.stop_word_ratio('the house of the rising sun', 'en') == pytest.approx(3 / 6, abs=0.17)
    assert texts.stop_word_ratio('日本語', 'ja') is None
    assert [texts.language_of(t) for t in ('これは日本語です', '这是中文', '한국어입니다', PROSE, '123')] == [
        'ja', 'zh', 'ko', 'en', 'unknown',
    ]  # fmt: skip


@pytest.mark.parametrize(
    'text, kind, rule',
    [
        (PROSE, 'text', None),
        ('Filter “Oilify” applied', 'caption', None),
        ('Der alte Leuchtturm steht auf einem Felsen am Ende der Bucht, und sein Wärter steigt hinauf.', 'text', None),
        ('古い灯台は湾の端の岩の上に立っていて、番人は毎晩階段を上ります。', 'text', None),
        ('Two words', 'text', 'text_min_words'),
        ('!?', 'heading', 'heading_min_words'),
        ('buy it now ' * 20, 'text', 'text_character_repetition'),
        # A caption repeats its words; an entry of an index says one phrase twice.
        ('Links: Schärfe = 1. Mitte: Schärfe = 5. Rechts: Schärfe = 10.', 'caption', None),
        ('Слева: число шагов = 2. Справа: число шагов = 4.', 'caption', None),
        ('Align top edge of target: to align top edge of source with top edge of target.', 'text', None),
        ('Mit Muster füllen, „Mit Muster füllen“', 'text', 'text_character_repetition'),
        ('Walla Walla', 'heading', None),
        ('Chapter 11. Network Services: Postfix, Apache, NFS, Samba, Squid, LDAP, SIP, XMPP, TURN', 'heading', None),
        ('a ' + PROSE * 40, 'text', 'text_max_words'),
        ('12 + 34 = 46, 7 * 8 = 56, (9 - 1) / 2 = 4', 'text', 'text_special_characters'),
        ('xq zv kj wq bn vf gt hy lp mk nj bg vf cd', 'text', 'text_punctuation'),
        ('Felsen, Bucht, Wärter, Turm, Abend, Boot, Sturm, Treppe, Hafen, Licht, See, Tau.', 'text', 'text_stop_words'),
        ('Share this on Facebook and subscribe to our newsletter', 'text', 'text_spam_words'),
    ],
)  # fmt: skip
def test_rules_of_texts(text, kind, rule):
    node = Text(1, text, kind, 0.0, True, 1)
    language = filters.language_of_blocks([node]) if rule is None else ENGLISH
    broken = filters.broken_by_text(node, language, DEFAULT)
    assert (broken and broken[0]) == rule


@pytest.mark.parametrize(
    'text',
    [  # Of the Universal Declaration of Human Rights, article 1.
        'มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม',
        'ມະນຸດເກີດມາມີສິດເສລີພາບ ແລະ ສະເໝີໜ້າກັນໃນທາງກຽດຕິສັກ ແລະ ສິດດ້ວຍມະນຸດມີສະຕິສຳປັດຊັນຍະ',
        'មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។',
        'လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။',
        'འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌། ཐོབ་ཐངགི་རང་དབང་འདྲ་མཉམ་དུ་ཡོད་ལ།',
        'የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው። የተፈጥሮ ማስተዋልና ሕሊና ስላለው መመልከት ይገባዋል።',
        'Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։',
        'सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है '
        'और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।',
        'सर्व मानवी व्यक्ति जन्मतःच स्वतंत्र आहेत व त्यांना समान प्रतिष्ठा व समान अधिकार आहेत.',
        'सबै व्यक्तिहरू जन्मजात स्वतन्त्र हुन् ती सबैको समान अधिकार र महत्व छ।',
        'সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে। তাঁদের বিবেক এবং বুদ্ধি আছে।',
        'மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; அவர்கள் மதிப்பிலும், உரிமைகளிலும் சமமானவர்கள், '
        'அவர்கள் நியாயத்தையும் மனச்சாட்சியையும் பெற்றவர்கள்.',
        'ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును నగుదురు. వారు పరస్పరము భ్రాతృభావముతో వర్తింపవలయును.',
        'සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත, ගරුත්වයෙන් හා අයිතිවාසිකම්වලින් සමාන වෙති, ශ්‍රී ලංකාවේ ද එසේමය.',
        'כָּל בְּנֵי הָאָדָם נוֹלְדוּ בְּנֵי חוֹרִין וְשָׁוִים בְּעֶרְכָּם וּבִזְכֻיּוֹתֵיהֶם. כֻּלָּם חֻנְּנוּ בִּתְבוּנָה וּבְמַצְפּוּן, '
        'לְפִיכָךְ חוֹבָה עֲלֵיהֶם לִנְהֹג אִישׁ בְּרֵעֵהוּ בְּרוּחַ שֶׁל אַחֲוָה.',
        # Of other articles, in languages that attach what others say by frequent words.
        '모든 사람은 공동체의 문화생활에 자유롭게 참여하며 예술을 향유하고 과학의 발전과 그 혜택을 '
        '공유할 권리를 가진다.',
        'Кожна людина має право на життя, на свободу і на особисту недоторканність.',
        'Hverjum manni skal frjálst að eiga þátt í friðsamlegum fundahöldum og félagsskap.',
        'Y mae gan bawb hawl gyfartal i wasanaeth cyhoeddus yn eu gwlad.',
        'प्रत्येक व्यक्तिलाई शन्तिपूर्ण रुपमा भेला हुने तथा संघ संस्था खोल्ने अधिकार छ ।',
        # In languages that the detector takes for others.
        'Wonke umuntu unelungelo lokubumba noma lokuba ilunga lenyunyana ukuze kuvikeleke izidingo zakhe.',
        'Àwọn òbí ló ní ẹ̀tọ́ tó ga jù lọ láti yan ẹ̀kọ́ tí wọ́n bá fẹ́ fún àwọn ọmọ wọn.',
        'Herkes xwediyê mafê nasîna li hemû ciyan a şexsiyeta xwe ya hiqûyî ye.',
        'ወዲ ሰብ ምልኪን ወፅዓን ንምውጋድ ሓይሊ ንክጥቀም ምእንቲ ከይግደድ ሰብኦዊ መሰላት ብሕጊ ክኽበሩ ኦድላዪ ስለዝኾነ፣',
        'Akukho namnye oya kuhluthwa ubuhlanga bakhe okanye ahluthwe ilungelo lokutshintsha ubuzwe bakhe.',
        'Onye ọ bụla nwere ikike inwe ndụ, ohere na nchedo nke onwe ya.',
        'Kaua tetahi tangata e murua e te ringa kaha i ona taonga ake.',
        # Of a manual, and of an encyclopedia.
        TURKISH,
        '이 도움말에서는 새 이미지를 만들고 저장하는 방법을 설명합니다. 먼저 파일 메뉴에서 새로 만들기를 '
        '누르면 대화 상자가 열립니다.',
        'پشیلە ئاژەڵێکی بچووکی گۆشتخۆرە کە لە ماڵدا بەخێو دەکرێت. مرۆڤ هەزاران ساڵە پشیلە لە ماڵەکانیاندا '
        'ڕادەگرن بۆ گرتنی مشک.',
    ],
)
def test_prose_in_any_script_is_kept(text):
    node = Text(1, text, 'text', 0.0, True, 1)
    language = filters.language_of_blocks([node])
    assert filters.broken_by_text(node, language, DEFAULT) is None
    assert filters.broken_by_document([node], language, DEFAULT) is None


def test_lists_of_words_are_known_by_their_language():
    """Beside prose in it, which shows which words are frequent. A text in a language without such words is none."""
    german = (
        'Der alte Leuchtturm steht auf einem Felsen am Ende der Bucht, und sein Wärter steigt jeden Abend hinauf.',
        'Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt '
        'und sollen einander im Geist der Brüderlichkeit begegnen.',
        'Felsen, Bucht, Wärter, Turm, Abend, Boot, Sturm, Treppe, Hafen, Licht, See, Tau.',
        TURKISH,
    )
    nodes = [Text(i, text, 'text', 0.0, True, i) for i, text in enumerate(german)]
    language = filters.language_of_blocks(nodes)
    assert language.code == 'de' and language.has_frequent_words
    rules = [filters.broken_by_text(node, language, DEFAULT) for node in nodes]
    assert rules == [None, None, ('text_stop_words_elsewhere', 0.0), None]


def test_languages_of_one_script_are_told_apart_by_their_frequent_words():
    """Of the Universal Declaration of Human Rights. To the detector the Hindi is Nepali, and the Nepali Sanskrit."""
    told = {
        'प्रत्येक व्यक्ति को अकेले और दूसरों के साथ मिलकर सम्मति रखने का अधिकार है ।': 'hi',
        'किसी को भी मनमाने ढंग से गिरफ़्तार, नज़रबन्द या देश-निष्कासित न किया जाएगा ।': 'hi',
        'कसैलाई पनि मनमानी ढाँगले देश निष्कासित वा गिरफ्तार वा नजर बन्द गरिने छैन।': 'ne',
        'सर्व मानवी व्यक्ति जन्मतःच स्वतंत्र आहेत व त्यांना समान प्रतिष्ठा व समान अधिकार आहेत.': 'mr',
    }
    assert {text: texts.language_of(text) for text in told} == told


def test_a_language_that_the_detector_does_not_know_is_none_of_another_script():
    amharic = 'የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።'
    tigrinya = 'ወዲ ሰብ ምልኪን ወፅዓን ንምውጋድ ሓይሊ ንክጥቀም ምእንቲ ከይግደድ ሰብኦዊ መሰላት ብሕጊ ክኽበሩ ኦድላዪ ስለዝኾነ፣'
    cherokee = 'ᏂᎦᏓ ᎠᏂᏴᏫ ᏂᎨᎫᏓᎸᎾ ᎠᎴ ᎤᏂᏠᏱ ᎤᎾᏕᎿ ᏚᏳᎧᏛ ᎨᏒᎢ.'
    assert {texts.language_of(text) for text in (amharic, tigrinya, cherokee)} == {'unknown'}


def test_letters_with_their_accents_are_one_character():
    """A text of a Mac, whose accents are characters of their own, is the same text."""
    text = 'Con mèo đã nuôi trong nhà từ hàng nghìn năm nay để bắt chuột, và cũng được yêu thích nhất trên thế giới.'
    apart = unicodedata.normalize('NFD', text)
    assert texts.clean(apart)[0] == text and texts.words(apart) == texts.words(text)
    assert duplicates.text_key(apart) == duplicates.text_key(text)
    assert duplicates.near_keys(apart) == duplicates.near_keys(text)
    assert shown(f'<p>{apart}</p>') == [text]


def test_repetition_in_short_texts_is_judged_as_published_if_asked():
    text = Text(1, 'Links: Schärfe = 1. Mitte: Schärfe = 5. Rechts: Schärfe = 10.', 'caption', 0.0, True, 1)
    assert filters.broken_by_text(text, filters.Language('de', 0.0, True), OBELICS)[0] == 'text_character_repetition'


def test_menus_are_known_by_their_links():
    page = read_page(b'<p><a href=a>Some link</a> <a href=b>and another one</a></p>', 'http://a.b/')
    assert filters.broken_by_text(page.nodes[0], ENGLISH, DEFAULT)[0] == 'text_links'


@pytest.mark.parametrize('number', NUMBERS)
def test_mutated_pages_neither_hang_nor_raise(number):
    rng = np.random.default_rng(0)
    source = f"""<!doctype html><html><head><meta charset="utf-8"><base href="http://a.b/"><title>x</title></head><body>
      <nav><a href=x>y</a></nav><h1>Title</h1><p style="display: none">no</p><p>{PROSE} <img src="a.png" width="10px">
      &lt;image&gt; &#0; &#x1F600; é</p><table><tr><td><p>cell</p><img srcset="a 1x, b 2x"></table><!-- c -->
      <svg><p>s</svg>
      <figure><img src="data:image/png;base64,AA"><figcaption>cap</figcaption></figure></body></html>"""
    source = source.encode()
    for _ in range(number):
        data = bytearray(source)
        for at in rng.integers(0, len(data), rng.integers(1, 30)):
            data[at] = rng.choice(list(b'<>/"=& \x00\xff\x80a!-')) if rng.random() < 0.7 else rng.integers(256)
        if rng.random() < 0.3:
            a, b = sorted(rng.integers(0, len(data) + 1, 2))
            data[a:a] = data[a:b] * int(rng.integers(1, 4))
        try:
            page = read_page(bytes(data), 'http://a.b/', str(rng.choice(['', 'utf-8', 'utf-16', 'shift_jis', 'x'])))
        except PageError:
            continue
        for node in page.nodes:
            if isinstance(node, Link):
                assert node.url.startswith(('http://', 'https://'))
            else:
                filters.broken_by_text(node, ENGLISH, DEFAULT)
                node.text.encode()
