'use strict';
// The page of `vireid serve`. Text from files and the server is set as text, never as HTML.

const get = (id) => document.getElementById(id);
const state = { info: null, files: [], answer: null, shown: -1, marks: new Map() };
const count = (number) => number.toLocaleString('en');
const MOST_TRIES = 5;
const LEAST_ABOVE = 10; // strangers above a threshold, as `vireid search --false-match` needs them

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function say(text, isProblem = false) {
  get('status').textContent = text;
  get('status').classList.toggle('problem', isProblem);
}

async function request(path, options = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await fetch(path, options);
    if (answer.status === 401 && path !== '/api/login') {
      await login();
      continue;
    }
    if (answer.status === 503 && attempt < MOST_TRIES) {
      const seconds = Number(answer.headers.get('Retry-After')) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      continue;
    }
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    throw new Error([problem.detail || `The server answered ${answer.status}`, problem.hint].filter(Boolean).join('; '));
  }
}

const send = (path, value) => request(path, {
  method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(value),
});

function login() {
  const dialog = get('login');
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    get('login-form').onsubmit = async (event) => {
      event.preventDefault();
      try {
        await send('/api/login', { token: get('token').value });
        get('token').value = '';
        dialog.close();
        resolve();
      } catch (problem) {
        get('login-problem').textContent = problem.message;
      }
    };
  });
}

// The gallery and its filters

function gallery() {
  const asked = document.querySelector('input[name="modality"]:checked');
  return state.info.galleries.find((one) => one.queries === (asked && asked.value)) || state.info.galleries[0];
}

function choice(kind, name, value, label, checked) {
  const line = element('label', '');
  const input = element('input', '', { type: kind, name, value });
  input.checked = checked;
  line.append(input, ` ${label}`);
  return line;
}

function showFilters() {
  const { cameras, span, images, modality, strangers: strangersKnown } = gallery();
  get('source').textContent = `${state.info.run}: ${count(images)} ${modality} images`;
  get('cameras').hidden = cameras.length < 2;
  get('camera-choice').replaceChildren(...cameras.map((one) => (
    choice('checkbox', 'camera', one.name, `${one.name} (${count(one.images)})`, false))));
  get('times').hidden = span === null;
  get('strangers').hidden = strangersKnown === null;
  get('false-match').value = '';
  for (const one of get('false-match').options) one.hidden = one.value * strangersKnown < LEAST_ABOVE && one.value !== '';
  for (const id of ['since', 'until']) {
    get(id).value = '';
    [get(id).min, get(id).max] = span ? span.map((time) => time.slice(0, 16)) : ['', ''];
  }
}

async function start() {
  state.info = await (await request('/api/gallery')).json();
  const { galleries, synthetic } = state.info;
  get('modality-choice').replaceChildren(...galleries.map((one, place) => (
    choice('radio', 'modality', one.queries, `${one.queries}, searched in ${one.modality}`, place === 0))));
  get('modality-choice').onchange = showFilters;
  get('caution').hidden = synthetic.length === 0;
  get('caution').textContent = `Synthetic people, not photographs: ${synthetic.join(', ')}`;
  showFilters();
}

// The images of the query

async function add(list) {
  const files = [...list]; // a list of the browser is empty after its event
  await ready;
  if (state.info === null) return undefined; // the start has said why
  const { images, body_bytes: bytes } = state.info.limits;
  const all = [...state.files, ...files];
  const size = all.reduce((sum, one) => sum + one.size, 0);
  if (all.length > images) return say(`A query has at most ${images} images.`, true);
  if (size > bytes) return say(`The images are larger than ${count(Math.floor(bytes / 2 ** 20))} MB together.`, true);
  state.files = all;
  return showChosen();
}

function showChosen() {
  get('chosen').replaceChildren(...state.files.map((file, place) => {
    const line = element('li', '');
    const image = element('img', '', { alt: file.name, title: file.name });
    image.src = URL.createObjectURL(file);
    image.onload = () => URL.revokeObjectURL(image.src);
    image.onerror = () => image.replaceWith(element('span', file.name, { class: 'no-preview' }));
    const remove = element('button', '✕', { type: 'button', 'aria-label': `Remove ${file.name}` });
    remove.onclick = () => {
      state.files.splice(place, 1);
      showChosen();
      get('files').focus();
    };
    line.append(image, remove);
    return line;
  }));
  get('clear').hidden = state.files.length < 2;
  get('search').disabled = state.files.length === 0;
  say(state.files.length ? 'Press Search.' : 'Choose an image of a person to begin.');
}

// Searching

async function search(event) {
  event.preventDefault();
  const values = new URLSearchParams({ modality: gallery().queries, k: get('count').value });
  document.querySelectorAll('input[name="camera"]:checked').forEach((one) => values.append('camera', one.value));
  if (get('since').value) values.set('since', get('since').value);
  if (get('until').value) values.set('until', `${get('until').value}:59.999999`); // the whole last minute
  if (get('false-match').value) values.set('false_match', get('false-match').value);
  const body = new FormData();
  state.files.forEach((file) => body.append('image', file, file.name));
  get('search').disabled = true;
  say('Searching …');
  try {
    state.answer = await (await request(`/api/search?${values}`, { method: 'POST', body })).json();
    state.marks.clear();
    showHits();
  } catch (problem) {
    say(problem.message, true);
  }
  get('search').disabled = state.files.length === 0;
}

const source = (hit, size) => `/api/images/${hit.row}?gallery=${state.answer.gallery}&size=${size}`;

function knowledge(hit) {
  const known = [['camera', hit.camera], ['person', hit.person], ['track', hit.track]];
  const parts = known.filter(([, value]) => value).map(([name, value]) => `${name} ${value}`);
  if (hit.images > 1) parts.push(`${hit.images} images`);
  return parts.join(' · ');
}

function strangers(hit) {
  if (hit.one_in === null) return '';
  if (hit.one_in < 1.05) return 'almost every stranger scores as high';
  const number = hit.one_in < 10 ? hit.one_in.toFixed(1) : count(Number(hit.one_in.toPrecision(2)));
  return `1 in ${number} strangers scores as high`;
}

function markButtons(hit) {
  return [['right', '✓ Right'], ['wrong', '✕ Wrong']].map(([mark, label]) => {
    const pressed = state.marks.get(hit.row) === mark;
    const made = element('button', label, {
      type: 'button', 'data-mark': mark, 'aria-pressed': pressed, 'aria-label': `Hit ${hit.rank} is ${mark}`,
    });
    made.onclick = () => setMark(hit, mark);
    return made;
  });
}

function card(hit, place) {
  const made = get('card').content.firstElementChild.cloneNode(true);
  const find = (name) => made.querySelector(name);
  find('img').src = source(hit, 'thumbnail');
  find('img').alt = `Hit ${hit.rank}: ${hit.path}`;
  find('img').loading = 'lazy';
  find('.open').onclick = () => open(place);
  find('.open').title = 'Open the image';
  find('.rank').textContent = hit.rank;
  find('.score').textContent = hit.score.toFixed(3);
  find('.score').title = 'Cosine similarity to the query';
  find('.one-in').textContent = strangers(hit);
  find('.known').textContent = knowledge(hit);
  find('.time').textContent = hit.time.replace('T', ' ');
  find('.path').textContent = hit.path.split('/').slice(-2).join('/');
  find('.path').title = hit.path;
  find('.marks').replaceChildren(...markButtons(hit));
  return made;
}

function showHits() {
  const { hits, modality, query } = state.answer;
  const total = count(gallery().images);
  get('hits').replaceChildren(...hits.map(card));
  const asked = `${query.length} ${modality} image${query.length > 1 ? 's' : ''}`;
  const where = `${total} ${state.answer.gallery} images`;
  get('summary').textContent = `${hits.length} hits in ${where} for ${asked}, most similar first`;
  get('conversions').replaceChildren(...query.filter((one) => one.conversions.length).map((one) => (
    element('li', `${one.name}: ${one.conversions.join('; ')}`))));
  if (hits.length) say('Mark hits as right or wrong; open an image to see it large.');
  else if (get('false-match').value) say('No image scores high enough: the person is most likely not in this gallery.');
  else say('No image fulfils these conditions.');
}

// Marks

async function setMark(hit, mark) {
  const next = state.marks.get(hit.row) === mark ? 'withdrawn' : mark;
  try {
    await send('/api/feedback', { search: state.answer.search, row: hit.row, mark: next });
  } catch (problem) {
    say(problem.message, true);
    return;
  }
  if (next === 'withdrawn') state.marks.delete(hit.row);
  else state.marks.set(hit.row, next);
  const place = state.answer.hits.indexOf(hit);
  const shown = get('hits').children[place];
  shown.classList.toggle('right', next === 'right');
  shown.classList.toggle('wrong', next === 'wrong');
  for (const box of [shown, ...(state.shown === place ? [get('large-marks')] : [])]) {
    box.querySelectorAll('[data-mark]').forEach((one) => one.setAttribute('aria-pressed', one.dataset.mark === next));
  }
  say(next === 'withdrawn' ? `The mark on hit ${hit.rank} is withdrawn.` : `Hit ${hit.rank} is marked ${next}.`);
}

// The large image

function open(place) {
  const hit = state.answer.hits[place];
  state.shown = place;
  get('viewer-title').textContent = `Hit ${hit.rank}, score ${hit.score.toFixed(3)}`;
  get('large').src = source(hit, 'full');
  get('large').alt = `Hit ${hit.rank}: ${hit.path}`;
  const facts = [hit.path, knowledge(hit), hit.time.replace('T', ' '), strangers(hit)];
  get('large-facts').textContent = facts.filter(Boolean).join(' · ');
  get('large-marks').replaceChildren(...markButtons(hit));
  get('previous').disabled = place === 0;
  get('next').disabled = place === state.answer.hits.length - 1;
  if (!get('viewer').open) get('viewer').showModal();
}

function step(by) {
  const place = state.shown + by;
  if (place >= 0 && place < state.answer.hits.length) open(place);
}

get('previous').onclick = () => step(-1);
get('next').onclick = () => step(1);
get('close').onclick = () => get('viewer').close();
get('viewer').onclose = () => {
  get('large').removeAttribute('src');
  const shown = get('hits').children[state.shown];
  if (shown) shown.querySelector('.open').focus();
  state.shown = -1;
};
get('viewer').onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    r: () => setMark(state.answer.hits[state.shown], 'right'), w: () => setMark(state.answer.hits[state.shown], 'wrong'),
  };
  const action = actions[event.key] || actions[event.key.toLowerCase()];
  if (action) {
    event.preventDefault();
    action();
  }
};

get('query').onsubmit = search;
get('clear').onclick = () => {
  state.files = [];
  showChosen();
};
get('files').onchange = () => {
  add(get('files').files);
  get('files').value = '';
};
for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    get('drop').classList.add('over');
  });
}
document.addEventListener('dragleave', () => get('drop').classList.remove('over'));
document.addEventListener('drop', (event) => {
  event.preventDefault();
  get('drop').classList.remove('over');
  add(event.dataTransfer.files);
});
const ready = start().catch((problem) => say(problem.message, true));
