// The page: a strip of cards, what is asked about it, and what comes back.
//
// A card is {id, name, frames, text, said}: an image as data URLs (none for text alone, several for a video) and the
// text after it; `said` is true of an answer in a chat. The server keeps nothing, so each request carries the whole strip.

const $ = id => document.getElementById(id)
const KEPT = 'strip' // Name in this tab's session storage, with which the strip survives a reload.
const LINK = '#strip=' // Begins the fragment of a link that holds a strip. A browser sends no fragment to a server.
const LINK_LENGTH = 1_000_000 // Most characters of a link: Firefox opens no address of more than 2**20.
const VARIANTS = ['model', 'shuffled', 'without']
const LOOKING = 'Looking…'
const GONE = 'The server does not answer.'
const LOOK_HINT = $('look-hint').textContent
// Where the results of each kind stand.
const PLACES = {model: ['answer-model', 'look'], shuffled: ['answer-shuffled'], without: ['answer-without'],
  nearest: ['answer-nearest'], rank: ['rank-candidates']}
const METHODS = {greedy: [], sampling: ['temperature', 'top_k', 'top_p', 'seed'], beams: ['num_beams']}

let cards = []
let latest = 0 // Number of the newest card.
let taken = null // What the last change took away, and the strip that it left.
let made = new Map() // Kind of result -> what it was made of.
const running = new Map() // What is being asked -> its AbortController.
const about = await greet()
$('gone').hidden = true

// ---- Cards -------------------------------------------------------------------------------------------------------

function newCard(name, frames, text = '', said = false) {
  return {id: ++latest, name, frames, text, said}
}

function setCards(list) {
  cards = list
  render()
}

function render() {
  const focused = document.activeElement
  const there = new Map([...$('strip').children].map(li => [Number(li.dataset.id), li]))
  const items = cards.map(card => there.get(card.id) ?? makeItem(card))
  if (items.length !== $('strip').children.length || items.some((li, i) => $('strip').children[i] !== li)) {
    $('strip').replaceChildren(...items)
    if (focused?.isConnected) focused.focus() // A card that moves loses the focus.
  }
  items.forEach((li, i) => {
    const [card, last] = [cards[i], i === cards.length - 1]
    li.className = [last && 'open', !card.frames && 'reading', card.frames?.length === 0 && 'text', card.said && 'said'].filter(Boolean).join(' ')
    const image = li.querySelector('img')
    if (card.frames?.length && image.src !== card.frames[0]) image.src = card.frames[0]
    image.alt = card.name
    image.style.objectFit = {crop: 'cover', squash: 'fill'}[about.fit] ?? 'contain' // As the model takes it.
    li.querySelector('figcaption').textContent =
      !card.frames ? `Reading ${card.name}…` : card.frames.length > 1 ? `${card.name}, ${card.frames.length} frames` : card.name
    const handle = li.querySelector('.handle')
    handle.textContent = `⠿ ${i + 1}${card.said ? ' answer' : ''}`
    handle.setAttribute('aria-label', `Card ${i + 1} of ${cards.length}${card.name && `, ${card.name}`}. Arrow keys move it, Delete removes it.`)
    for (const [side, ends] of [['left', i === 0], ['right', last]]) {
      const button = li.querySelector(`.${side}`)
      button.disabled = ends
      button.setAttribute('aria-label', `Move card ${i + 1} to the ${side}`)
    }
    li.querySelector('.remove').setAttribute('aria-label', `Remove card ${i + 1}`)
    const text = li.querySelector('textarea')
    if (text.value !== card.text) text.value = card.text
    text.placeholder = last ? chatting() ? 'What you ask' : 'The model goes on here' : 'Its text'
    text.setAttribute('aria-label', `Text of card ${i + 1}${card.said ? ', which the model said' : last ? ', which the model continues' : ''}`)
  })
  $('empty').hidden = cards.length > 0
  changed()
}

function makeItem(card) {
  const li = $('card').content.firstElementChild.cloneNode(true)
  li.dataset.id = card.id
  const text = li.querySelector('textarea')
  text.oninput = () => { card.text = text.value; changed() }
  li.querySelector('.left').onclick = () => move(card, -1)
  li.querySelector('.right').onclick = () => move(card, 1)
  li.querySelector('.remove').onclick = () => remove(card)
  const handle = li.querySelector('.handle')
  handle.onkeydown = event => {
    const by = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1}[event.key]
    if (by) move(card, by)
    else if (event.key === 'Delete' || event.key === 'Backspace') remove(card)
    else return
    event.preventDefault()
  }
  for (const part of [handle, li.querySelector('figure')]) {
    part.ondragstart = event => {
      event.dataTransfer.setData('text/x-card', card.id)
      event.dataTransfer.effectAllowed = 'move'
      event.dataTransfer.setDragImage(li, 20, 20)
      li.classList.add('dragged')
    }
    part.ondragend = unmark
  }
  return li
}

function move(card, by) {
  const [from, to] = [cards.indexOf(card), cards.indexOf(card) + by]
  if (to < 0 || to >= cards.length) return
  cards.splice(to, 0, ...cards.splice(from, 1))
  render()
  say(`Card ${from + 1} is now card ${to + 1} of ${cards.length}.`)
}

function remove(card) {
  const i = cards.indexOf(card)
  replace(() => setCards(cards.filter(other => other !== card)))
  const next = $('strip').children[Math.min(i, cards.length - 1)]
  ;(next?.querySelector('.handle') ?? $('add')).focus()
  say(`Card ${i + 1} is removed.`)
}

// ---- Dragging ----------------------------------------------------------------------------------------------------

// The place in the strip at which something that is dropped goes, and the card beside which a line shows it.
function placeOf(event) {
  const items = [...$('strip').children]
  const li = event.target.closest?.('#strip li')
  if (!li) return {at: cards.length, li: items.at(-1), side: 'after'}
  const box = li.getBoundingClientRect()
  const narrow = getComputedStyle($('strip')).gridTemplateColumns.split(' ').length === 1
  const after = narrow ? event.clientY > box.top + box.height / 2 : event.clientX > box.left + box.width / 2
  return {at: items.indexOf(li) + after, li, side: after ? 'after' : 'before'}
}

function unmark() {
  $('strip').classList.remove('over')
  for (const li of $('strip').children) li.classList.remove('before', 'after', 'dragged')
}

document.addEventListener('dragover', event => {
  const types = event.dataTransfer.types
  if (!types.includes('Files') && !types.includes('text/x-card')) return
  event.preventDefault()
  $('strip').classList.add('over')
  for (const li of $('strip').children) li.classList.remove('before', 'after')
  const {li, side} = placeOf(event)
  li?.classList.add(side)
})
document.addEventListener('dragleave', event => { if (!event.relatedTarget) unmark() })
document.addEventListener('drop', event => {
  const [id, files] = [Number(event.dataTransfer.getData('text/x-card')), [...event.dataTransfer.files]]
  if (!id && !files.length) return // Text that is dragged into a field.
  event.preventDefault()
  unmark()
  const {at} = placeOf(event)
  if (files.length) return addFiles(files, at)
  const from = cards.findIndex(card => card.id === id)
  if (from < 0) return
  const [card] = cards.splice(from, 1)
  cards.splice(at - (from < at), 0, card)
  render()
})

// ---- Images ----------------------------------------------------------------------------------------------------

async function addFiles(files, at = cards.length) {
  const added = []
  for (const file of files) {
    if (/\.json$/i.test(file.name)) { await openStrip(file); continue }
    const card = newCard(file.name || 'pasted.png', null)
    cards.splice(at++, 0, card)
    added.push([card, file])
  }
  render()
  for (const [card, file] of added) {
    try {
      card.frames = (await post('image', await bodyOf(file))).frames
    } catch (error) {
      notice(`${card.name}: ${error.message}`)
      card.unread = true
      cards = cards.filter(other => other !== card)
    }
    render()
  }
}

// What is sent of a file. Newer formats, which the server does not read, are made PNG here if this browser reads them.
async function bodyOf(file) {
  const large = file.size > about.upload_bytes && !file.type.startsWith('video/')
  const newer = /\.(avif|hei[cf])$/i.test(file.name) || /^image\/(avif|hei[cf])/.test(file.type)
  const body = large ? await shrink(file) : newer ? await shrink(file).catch(() => file) : file
  if (body.size > about.upload_bytes) throw Error(`This is larger than ${about.upload_bytes / 2 ** 20} MiB. Send less.`)
  return body
}

// A still too large to send, made smaller here.
async function shrink(file) {
  const image = await createImageBitmap(file).catch(() => {
    throw Error(`This is larger than ${about.upload_bytes / 2 ** 20} MiB, and the browser cannot read it as an image.`)
  })
  return toBlob(image, image.width, image.height)
}

function toBlob(image, width, height) {
  const scale = Math.min(1, 2 * about.shown / Math.max(width, height))
  const canvas = Object.assign(document.createElement('canvas'),
    {width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale))})
  const context = canvas.getContext('2d')
  context.imageSmoothingQuality = 'high'
  context.drawImage(image, 0, 0, canvas.width, canvas.height)
  return new Promise(resolve => canvas.toBlob(resolve, 'image/png'))
}

$('add').onclick = () => $('files').click()
$('files').onchange = () => { addFiles([...$('files').files]); $('files').value = '' }
$('add-text').onclick = () => {
  setCards([...cards, newCard('', [])])
  $('strip').lastElementChild.querySelector('textarea').focus()
}
$('clear').onclick = () => {
  replace(() => {
    clearAnswers()
    $('candidates').value = $('about-set').textContent = ''
    setCards([])
  })
  say($('undo').hidden ? '' : 'The strip, the candidates and the answers are cleared. Undo brings them back.')
}
$('undo').onclick = () => {
  const {rest, results} = taken
  clearAnswers()
  setCards(taken.cards.filter(card => !card.unread))
  setRest(rest)
  $('about-set').textContent = taken.about
  made = taken.made
  for (const {element, nodes, className, hidden} of results) {
    element.replaceChildren(...nodes)
    Object.assign(element, {className: className === 'writing' ? '' : className, hidden})
  }
  if ($('look-hint').textContent === LOOKING) $('look-hint').textContent = LOOK_HINT
  taken = null
  render()
  $('clear').focus()
  say('It is back.')
}
document.addEventListener('paste', event => {
  const files = [...event.clipboardData.files]
  if (!files.length) return
  event.preventDefault()
  addFiles(files)
})

const video = $('shot').querySelector('video')
$('camera').onclick = async () => {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({video: true})
    $('shot').showModal()
  } catch (error) {
    notice(`The camera cannot be used: ${error.message}.`)
  }
}
$('take').onclick = async () => {
  const blob = await toBlob(video, video.videoWidth, video.videoHeight)
  $('shot').close()
  addFiles([new File([blob], 'camera.png', {type: 'image/png'})])
}
$('close-camera').onclick = () => $('shot').close()
$('shot').onclose = () => { for (const track of video.srcObject?.getTracks() ?? []) track.stop() }

// ---- Whole strips ------------------------------------------------------------------------------------------------

function asFile() {
  return {flamingo_strip: 1, chat: chatting(), candidates: $('candidates').value,
    cards: cards.filter(card => card.frames).map(({name, frames, text, said}) => ({name, frames, text, said})),
    settings: Object.fromEntries(fields().map(input => [input.id, input.value]))}
}

// A frame as a data URL. Its kind becomes part of a file's name, in a command that is copied into a shell.
const FRAME = /^data:image\/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]*$/
const ENDS = {png: '.png', jpeg: '.jpg', webp: '.webp', gif: '.gif'}

// Throws if it is not a strip, before anything on the page changes.
function useFile(given) {
  const right = given?.flamingo_strip === 1 && Array.isArray(given.cards) && given.cards.every(card =>
    typeof card?.name === 'string' && typeof card.text === 'string' && Array.isArray(card.frames) &&
    card.frames.every(frame => typeof frame === 'string' && FRAME.test(frame))) &&
    (given.settings?.method === undefined || Object.hasOwn(METHODS, given.settings.method))
  if (!right) throw Error('This is not a strip that was saved here.')
  replace(() => {
    clearAnswers()
    setRest(given)
    $('about-set').textContent = ''
    setCards(given.cards.map(card => newCard(card.name, card.frames, card.text, card.said === true)))
  })
}

// What a file holds beside its cards.
function setRest({candidates, chat, settings}) {
  $('candidates').value = String(candidates ?? '')
  $('chat').checked = chat === true && about.chat
  for (const input of fields()) if (settings?.[input.id] !== undefined) input.value = settings[input.id]
}

// Makes a change that takes something away. *Undo* brings it back, until the strip is changed again.
function replace(change) {
  const before = {cards, rest: asFile(), about: $('about-set').textContent, made: new Map(made), results: results()}
  change()
  taken = before.cards.length || before.rest.candidates ? {...before, left: strip()} : null
  changed()
}

// The cards and candidates, as a key.
function strip() {
  return JSON.stringify([cards.map(({id, text, said}) => [id, text, said]), $('candidates').value])
}

// All that was answered, with the parts of the page that show it.
function results() {
  const elements = document.querySelectorAll('#answers output, #sure, #mixed, #reply, #look-hint, #words, #blocks, #ranked, #next, tbody')
  return [...elements].map(element =>
    ({element, nodes: [...element.childNodes], className: element.className, hidden: element.hidden}))
}

async function openStrip(file) {
  try {
    useFile(JSON.parse(await file.text()))
  } catch (error) {
    notice(`${file.name}: ${error instanceof SyntaxError ? 'This is not a strip that was saved here.' : error.message}`)
  }
}

// A strip as a link: its JSON, compressed, in base64url.
async function toLink(strip) {
  const packed = new Blob([JSON.stringify(strip)]).stream().pipeThrough(new CompressionStream('deflate-raw'))
  const bytes = new Uint8Array(await new Response(packed).arrayBuffer())
  const binary = Array.from(bytes, byte => String.fromCharCode(byte)).join('')
  return location.origin + location.pathname + LINK +
    btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

// Opens the strip of the page's own address, if it holds one, and takes it out of the address: a reload then shows the
// strip as it was changed since. True if it did.
async function openLink() {
  if (!location.hash.startsWith(LINK)) return false
  const text = location.hash.slice(LINK.length)
  history.replaceState(null, '', location.pathname)
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), c => c.charCodeAt(0))
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'))
    useFile(JSON.parse(await new Response(unpacked).text()))
    return true
  } catch {
    notice('The link does not hold a whole strip. Copy it again, or open the strip from a file.')
    return false
  }
}

$('link').onclick = async () => {
  const link = await toLink(asFile())
  if (link.length > LINK_LENGTH) {
    notice(`The strip is too large for a link: ${(link.length / 1e6).toFixed(1)} million characters, and browsers open about 1 million. Save it as a file.`)
    return
  }
  await copy(link, 'The link is copied. It holds the whole strip, images too.')
}
addEventListener('hashchange', openLink)

function download(name, url) {
  Object.assign(document.createElement('a'), {download: name, href: url}).click()
}

$('save').onclick = () => {
  const url = URL.createObjectURL(new Blob([JSON.stringify(asFile(), null, 1)], {type: 'application/json'}))
  download('strip.json', url)
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
$('open').onclick = () => $('strip-file').click()
$('strip-file').onchange = () => { openStrip($('strip-file').files[0]); $('strip-file').value = '' }
$('save-images').onclick = async () => {
  for (const [name, url] of fileNames().flat()) {
    download(name, url)
    await new Promise(done => setTimeout(done, 150)) // Chromium drops what is more than 10 files a second.
  }
}

for (const set of about.ready) {
  const button = Object.assign(document.createElement('button'), {type: 'button', textContent: set.title})
  button.onclick = () => replace(() => {
    clearAnswers()
    $('about-set').textContent = set.about
    $('candidates').value = set.candidates.join('\n')
    $('chat').checked = false
    setCards(set.cards.map(card => newCard(card.name, card.frames, card.text)))
  })
  $('ready').append(button)
}

// ---- The prompt --------------------------------------------------------------------------------------------------

function chatting() {
  return $('chat').checked
}

// A text in which nothing is a mark or a tag, as `flamingo_jax.inputs.prompts.mere` quotes it.
function mere(text) {
  return text.includes('<') || text.includes(about.quote) ? about.quote + text.replaceAll(about.quote, '') + about.quote : text
}

// A list of texts and images in reading order. A space stands before each text and <EOC> (or a newline) after it,
// except after the last, which is open. An <EOC> may be written in a text; all else in it is mere text.
function promptOf(cards) {
  return chatting() ? chatOf(cards) : cards.flatMap((card, i) => {
    const spaced = card.text && (/^\s/.test(card.text) ? '' : ' ') + card.text
    const text = spaced.split(about.chunk_end).map(mere).join(about.chunk_end)
    const end = text && i < cards.length - 1 && !text.endsWith(about.chunk_end) ? about.chunk_end : ''
    return [...(card.frames.length ? [{frames: card.frames}] : []), ...(text ? [text + end] : [])]
  })
}

// The same in a chat, with the marks that `flamingo_jax.inputs.prompts.chat` sets. All cards between two answers are
// what is asked: a space stands before the text of an image, and a new line before a text after another. Some models
// have the images of a turn first, each on a line. An answer at the end of the strip is open.
function chatOf(cards) {
  const items = [], marks = about.chat
  let told = false // Whether the turn has a text.
  const add = item => typeof item === 'string' && typeof items.at(-1) === 'string' ? items.push(items.pop() + item) : items.push(item)
  cards.forEach((card, i) => {
    const [before, after] = [cards[i - 1], cards[i + 1]]
    const first = before?.said !== card.said
    if (first) add(card.said ? marks.says : (before ? marks.between : '') + marks.asks)
    if (first && marks.images_first) {
      const end = cards.findIndex((other, j) => j > i && other.said !== card.said)
      for (const {frames} of cards.slice(i, end < 0 ? cards.length : end)) if (frames.length) { add({frames}); add('\n') }
    } else if (card.frames.length && !marks.images_first) add({frames: card.frames})
    if (first) told = false
    const space = typeof items.at(-1) === 'object' ? ' ' : (marks.images_first ? !told : first) ? '' : '\n'
    if (card.text) add(mere(marks.images_first ? space + card.text.trim() : (/^\s/.test(card.text) ? '' : space) + card.text))
    told ||= card.text !== ''
    if (card.said ? after : !after || after.said) add(card.said ? marks.ends_turn : marks.answers)
  })
  return items
}

function settings() {
  const names = ['max_new_tokens', ...METHODS[$('method').value]]
  return Object.fromEntries(names.map(name => [name, Number($(name).value)]))
}

// The strip with its images at other places, as the evaluation shuffles them: those of the examples among one
// another, none in its own place. With fewer than two examples, all images.
function shuffled(cards) {
  const all = cards.flatMap((card, i) => card.frames.length ? [i] : [])
  const some = all.length > 2 ? all.slice(0, -1) : all
  if (some.length < 2) throw Error('There must be two images to shuffle.')
  const order = [...some]
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  const mixed = cards.map(card => ({...card}))
  order.forEach((place, i) => { mixed[place].frames = cards[order[(i + 1) % order.length]].frames })
  return mixed
}

function variant(name) {
  if (cards.some(card => !card.frames)) throw Error('An image is still being read.')
  if (!cards.length) throw Error('The strip is empty. Add an image or a text.')
  if (name === 'shuffled') return shuffled(cards)
  return name === 'without' ? cards.map(card => ({...card, frames: []})) : cards
}

// For each card the file names of its frames, with their data URLs; no name twice.
function fileNames() {
  const used = new Set()
  const unique = (stem, end) => {
    let name = stem + end
    for (let i = 2; used.has(name); i++) name = `${stem}-${i}${end}`
    used.add(name)
    return name
  }
  return cards.filter(card => card.frames?.length).map(card => {
    const stem = card.name.normalize('NFC').replace(/\.[^.]*$/, '').replace(/[^\p{L}\p{M}\p{N}_-]+/gu, '_') || 'image'
    return card.frames.map((url, i) => {
      const end = ENDS[FRAME.exec(url)?.[1]] ?? '.png'
      return [unique(card.frames.length > 1 ? `${stem}-${i + 1}` : stem, end), url]
    })
  })
}

function showCode() {
  const names = fileNames().map(frames => frames.map(([name]) => name))
  const [python, shell] = [[], []]
  const quoted = text => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\n', '\\n')}'`
  const inShell = text => /^[\w./,=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
  for (const item of promptOf(cards.filter(card => card.frames))) {
    if (typeof item === 'string') {
      const parts = item.split(about.quote).map((text, i) => text && (i % 2 ? `flamingo.tokenizer.literal(${quoted(text)})` : quoted(text)))
      python.push(parts.filter(Boolean).join(' + '))
      shell.push(`--text=${inShell(item)}`)
    } else {
      const paths = names.shift()
      const each = paths.map(name => `pathlib.Path(${quoted(name)})`)
      python.push(each.length > 1 ? `[${each.join(', ')}]` : each[0])
      shell.push(`--image=${inShell(paths.join(','))}`)
    }
  }
  const chosen = Object.entries(settings())
  const order = python.map(item => `    ${item},\n`).join('')
  $('python').textContent = `import pathlib\n\nimport flamingo_jax\n\nflamingo = flamingo_jax.load(${quoted(about.checkpoint)}${about.lm && `, lm=${quoted(about.lm)}`})\n` +
    `prompt = [\n${order}]\nprint(flamingo.generate(prompt, ${chosen.map(([name, value]) => `${name}=${value}`).join(', ')}))`
  $('command').textContent = ['python -m flamingo_jax.generate', `--checkpoint=${inShell(about.checkpoint)}`, ...about.lm ? [`--lm=${inShell(about.lm)}`] : [], ...shell,
    ...chosen.map(([name, value]) => `--${name}=${value}`)].join(' \\\n    ')
}

for (const button of document.querySelectorAll('[data-copy]')) {
  button.onclick = () => copy($(button.dataset.copy).textContent, 'Copied.')
}

// ---- Asking ------------------------------------------------------------------------------------------------------

// What the server says of itself. Waits for a server that does not answer.
async function greet() {
  for (;; await new Promise(done => setTimeout(done, 1000))) {
    try {
      return await (await fetch('about')).json()
    } catch {
      $('gone').hidden = false
    }
  }
}

// Shows that the server does not answer, until it does.
async function waitForServer() {
  if (!$('gone').hidden) return
  $('gone').hidden = false
  const now = await greet()
  $('gone').hidden = true
  for (const output of document.querySelectorAll('output.wrong')) {
    if (output.textContent === GONE) Object.assign(output, {className: '', textContent: ''})
  }
  if ($('look-hint').textContent === GONE) $('look-hint').textContent = LOOK_HINT
  say('The server is back. Ask again.')
  if (now.checkpoint !== about.checkpoint || now.lm !== about.lm) {
    notice(`The server is back with another model, ${now.checkpoint}. Reload the page to use it.`)
  }
}

// For the `catch` of what comes from the server: names a connection that was cut, which each browser calls otherwise.
function cut(error) {
  if (error.name === 'AbortError') throw error
  waitForServer()
  throw Error(GONE)
}

async function post(path, body, signal) {
  const response = await fetch(path, {method: 'POST', body, signal}).catch(cut)
  if (path === 'answer' && response.ok) return response
  const text = await response.text().catch(cut)
  let found = {error: 'The server is busy. Try again in a moment.'}
  try { found = JSON.parse(text) } catch {} // A server that is busy sends no JSON.
  if (found.error) throw Error(found.error)
  return found
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  for (let rest = '', part; !(part = await reader.read().catch(cut)).done;) {
    const found = (rest + part.value).split('\n')
    rest = found.pop()
    yield* found.map(line => JSON.parse(line))
  }
}

// Runs one request of its kind, which another of that kind ends; shows its error in `output`.
async function run(kind, output, task) {
  running.get(kind)?.abort()
  const controller = new AbortController()
  running.set(kind, controller)
  made.set(kind, basis(kind))
  markOld()
  busy()
  Object.assign(output, {className: 'writing', ariaLive: 'off', textContent: ''})
  try {
    await task(controller.signal)
    finish(output)
  } catch (error) {
    if (running.get(kind) !== controller) return // Another has begun.
    if (error.name === 'AbortError') {
      finish(output)
      say('Stopped.')
    } else {
      Object.assign(output, {className: 'wrong', ariaLive: 'polite', textContent: error.message})
    }
  } finally {
    if (running.get(kind) === controller) running.delete(kind)
    busy()
  }
}

// A screen reader reads an answer once, when it is whole: no change was told until now, and setting the text is one.
function finish(output) {
  if (output.className === 'writing') Object.assign(output, {className: '', ariaLive: 'polite', textContent: output.textContent})
}

// What a result of a kind is made of, as a key: if it changes, the result is out of date.
function basis(kind) {
  const all = {candidates: kind === 'rank' && $('candidates').value, chat: kind !== 'nearest' && chatting(),
    settings: VARIANTS.includes(kind) && settings()}
  return JSON.stringify([cards.map(({id, text, said}) => [id, text, said]), all])
}

function markOld() {
  for (const [kind, places] of Object.entries(PLACES)) {
    const old = made.has(kind) && made.get(kind) !== basis(kind)
    for (const id of places) $(id).classList.toggle('stale', old)
  }
}

function busy() {
  $('stop').hidden = running.size === 0
  if (running.size) say('Working. The first answer to prompts of a new length takes longer.')
  else if ($('status').textContent.startsWith('Working')) say('')
}

function ask(name) {
  if (!$('ask').reportValidity()) return
  const output = $(`answer-${name}`).querySelector('output')
  if (name === 'model') clearAnswers()
  return run(name, output, async signal => {
    const asked = variant(name)
    const images = asked.filter(card => card.frames.length)
    const sure = name === 'model' && about.fitted && !chatting()
    const body = JSON.stringify({prompt: promptOf(asked), settings: settings(), look: name === 'model', probability: sure})
    if (name === 'shuffled') {
      $('mixed').replaceChildren(...images.map(card =>
        Object.assign(new Image(), {src: card.frames[0], alt: card.text || 'asked about', title: card.text})))
    }
    let whole = false
    try {
      for await (const line of lines(await post('answer', body, signal))) {
        if (line.error) throw Error(line.error)
        if (line.text !== undefined) output.textContent = line.text
        if (line.done) {
          whole = true
          if (name === 'model') $('reply').hidden = !chatting() || !output.textContent
          if (!output.textContent) output.textContent = '(nothing)'
          finish(output)
          if (name === 'model') $('look-hint').textContent = LOOKING
        }
        if (line.probability !== undefined) {
          const percent = `${Math.round(100 * line.probability)} %`
          Object.assign($('sure'), {hidden: false, textContent: line.probability < .5 ? `Not sure: ${percent}.` : `${percent} sure.`})
        }
        if (line.look) showLook(line.look, images)
        if (line.look_error) $('look-hint').textContent = line.look_error
      }
    } catch (error) {
      if (!whole || error.name === 'AbortError') throw error
      $('look-hint').textContent = error.message // The answer stands.
    } finally { // It may have been stopped.
      if ($('look-hint').textContent === LOOKING) $('look-hint').textContent = LOOK_HINT
    }
  })
}

$('ask').onsubmit = event => { event.preventDefault(); ask('model') }
for (const name of VARIANTS.slice(1)) $(`answer-${name}`).querySelector('button').onclick = () => ask(name)
$('reply').onclick = () => {
  const answer = $('answer-model').querySelector('output').textContent
  clearAnswers()
  setCards([...cards, newCard('', [], answer, true), newCard('', [])])
  $('strip').lastElementChild.querySelector('textarea').focus()
}
$('stop').onclick = () => { for (const controller of running.values()) controller.abort() }
document.addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.isComposing) ask('model')
})

$('answer-nearest').querySelector('button').onclick = () => {
  const output = $('answer-nearest').querySelector('output')
  return run('nearest', output, async signal => {
    const shown = variant('model').filter(card => card.frames.length)
    const [query, examples] = [shown.at(-1), shown.slice(0, -1).filter(card => card.text)]
    if (!examples.length) throw Error('There must be an example with a text before the last image.')
    const body = {images: [...examples, query].map(({frames}) => ({frames})), labels: examples.map(card => card.text.trim())}
    output.textContent = (await post('nearest', JSON.stringify(body), signal)).label
  })
}

$('rank').onclick = () => {
  const candidates = [...new Set($('candidates').value.split('\n').map(line => line.trim()).filter(Boolean))]
  const message = document.createElement('output')
  $('ranked').hidden = true
  return run('rank', message, async signal => {
    if (!candidates.length) throw Error('Write a candidate in each line.')
    const body = {prompt: promptOf(variant('model')), candidates: candidates.map(text => chatting() ? about.chat.says + mere(text) + about.chat.ends_answer : mere(` ${text}`) + about.chunk_end)}
    const {log_likelihoods: scores} = await post('rank', JSON.stringify(body), signal)
    const most = Math.max(...scores)
    const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0)
    const order = candidates.map((_, i) => i).sort((i, j) => scores[j] - scores[i])
    fill('ranked', order.map(i => [candidates[i], Math.exp(scores[i] - most) / total, Math.exp(scores[i])]))
  }).then(() => { if (message.className === 'wrong') notice(message.textContent) })
}

// ---- What it looked at -------------------------------------------------------------------------------------------

function showLook({tokens, likeliest, gates, over}, images) {
  const seen = Object.keys(over).map(Number)
  $('look-hint').textContent = about.only_at_tag
    ? 'In this model only the images\' own tokens look at images. Words read them there.'
    : !seen.length ? 'It saw no image.'
    : about.only_last_image
      ? 'Each word sees the last image alone; the language model reads the examples from the words before. Choose a word.'
      : 'Choose a word.'
  const choose = i => {
    ;[...$('words').children].forEach((button, j) => button.setAttribute('aria-pressed', i === j))
    $('blocks').replaceChildren(...seen.flatMap(image => over[image].map((positions, block) =>
      blockFigure(images[image], positions[i], block, gates[block], seen.length > 1 ? image : null))))
    fill('next', likeliest[i].map(([token, p]) => [token.replaceAll('\n', '⏎'), p]))
  }
  $('words').replaceChildren(...[...tokens, 'end'].map((token, i) => {
    const button = Object.assign(document.createElement('button'), {type: 'button', dir: 'auto', textContent: token.replaceAll('\n', '⏎')})
    button.onclick = () => choose(i)
    return button
  }))
  choose(0)
}

// An image with the attention of one position in one block laid over it; of a video, its most attended frame.
function blockFigure(card, frames, block, [gate, dense], number) {
  const sum = map => map.flat().reduce((a, b) => a + b, 0)
  const t = frames.reduce((best, map, i) => sum(map) > sum(frames[best]) ? i : best, 0)
  const figure = document.createElement('figure')
  const canvas = Object.assign(document.createElement('canvas'), {width: 288, height: 288})
  const caption = document.createElement('div')
  caption.textContent = `${number === null ? '' : `image ${number + 1}, ${Math.round(100 * frames.map(sum).reduce((a, b) => a + b))} %; `}` +
    `before layer ${about.blocks[block] + 1}${frames.length > 1 ? `, frame ${t + 1}` : ''}; gates ${gate.toFixed(2)}, ${dense.toFixed(2)}`
  figure.append(canvas, caption)
  canvas.setAttribute('role', 'img')
  canvas.setAttribute('aria-label', `Attention over ${card.name}`)
  const image = new Image()
  image.onload = () => paint(canvas, image, frames[t])
  image.src = card.frames[Math.min(t, card.frames.length - 1)]
  return figure
}

function paint(canvas, image, map) {
  const [context, size, side] = [canvas.getContext('2d'), canvas.width, map.length]
  let [width, height] = [image.width, image.height]
  if (about.fit === 'squash') [width, height] = [size, size]
  else {
    const scale = size / (about.fit === 'crop' ? Math.min(width, height) : Math.max(width, height))
    ;[width, height] = [width * scale, height * scale]
  }
  context.fillStyle = '#fff'
  context.fillRect(0, 0, size, size)
  context.filter = 'grayscale(1)' // So that the colour shows the attention alone.
  context.drawImage(image, (size - width) / 2, (size - height) / 2, width, height)
  context.filter = 'none'
  const heat = Object.assign(document.createElement('canvas'), {width: side, height: side})
  const pixels = new ImageData(side, side)
  const most = Math.max(...map.flat(), 1e-9)
  map.flat().forEach((value, i) => pixels.data.set([230, 60, 0, 215 * value / most], 4 * i))
  heat.getContext('2d').putImageData(pixels, 0, 0)
  context.imageSmoothingEnabled = true
  context.drawImage(heat, 0, 0, size, size)
}

// Rows of a text and probabilities.
function fill(table, rows) {
  $(table).hidden = rows.length === 0
  $(table).tBodies[0].replaceChildren(...rows.map(([text, ...numbers]) => {
    const tr = document.createElement('tr')
    const name = Object.assign(document.createElement('td'), {className: 'token', dir: 'auto', textContent: text})
    tr.append(name, ...numbers.map(p => {
      const td = Object.assign(document.createElement('td'), {className: 'number'})
      td.append(Object.assign(document.createElement('meter'), {value: p}), ` ${p >= 0.001 || p === 0 ? p.toFixed(3) : p.toExponential(0)}`)
      return td
    }))
    return tr
  }))
}

// ---- The rest of the page ----------------------------------------------------------------------------------------

function fields() {
  return [...$('ask').querySelectorAll('select, input:not([type=checkbox])')]
}

function changed() {
  for (const method of ['sampling', 'beams']) {
    for (const label of document.querySelectorAll(`.of-${method}`)) {
      label.hidden = $('method').value !== method
      label.querySelector('input').disabled = label.hidden // What is hidden is not checked.
    }
  }
  markOld()
  $('undo').hidden = taken?.left !== strip()
  showCode()
  clearTimeout(changed.timer)
  changed.timer = setTimeout(keep, 300)
}

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(asFile()))
    keep.told = false
  } catch { // The browser keeps about 5 MB.
    sessionStorage.removeItem(KEPT)
    if (!keep.told) notice('The strip is too large to survive a reload of the page. Save it as a file.')
    keep.told = true
  }
}

function clearAnswers() {
  $('reply').hidden = $('sure').hidden = true
  $('look-hint').textContent = LOOK_HINT
  for (const controller of running.values()) controller.abort()
  running.clear()
  made.clear()
  markOld()
  for (const output of document.querySelectorAll('#answers output')) Object.assign(output, {textContent: '', className: ''})
  $('ranked').hidden = $('next').hidden = true
  $('words').replaceChildren()
  $('mixed').replaceChildren()
  $('blocks').replaceChildren()
}

async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text)
    say(done)
  } catch (error) {
    notice(`The browser does not let the page copy: ${error.message}`)
  }
}

function say(text) {
  $('status').textContent = text
}

function notice(text) {
  const p = Object.assign(document.createElement('p'), {textContent: text})
  const close = Object.assign(document.createElement('button'), {type: 'button', textContent: '✕'})
  close.setAttribute('aria-label', 'Close the message')
  close.onclick = () => p.remove()
  p.append(close)
  $('notices').append(p)
}

for (const input of [...fields(), $('candidates')]) input.addEventListener('input', changed)
$('chat').parentElement.hidden = !about.chat
$('chat').addEventListener('input', () => {
  $('max_new_tokens').value = chatting() ? 48 : 32 // A sentence or two, or a name, also in a script spelled in bytes.
  clearAnswers()
  render()
})
addEventListener('pagehide', keep)
$('model').textContent = `${about.checkpoint}, a context of ${about.context} tokens.`
$('card-link').hidden = !about.card
$('start').textContent = about.start
$('how-to-start').hidden = !about.start
if (!await openLink()) {
  try {
    useFile(JSON.parse(sessionStorage.getItem(KEPT)))
  } catch {
    setCards([])
  }
}
taken = null // What a browser fills in by itself is not the strip before.
changed()
