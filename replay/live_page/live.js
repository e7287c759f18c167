// The live page: reads the server's lines, inserts the sections, and keeps the exact figures of the last seconds.
// The link's fragment is the key. It is sent to the server in a header, never in a URL.
const key = location.hash.slice(1);
const state = document.getElementById('state');
const body = document.querySelector('#seconds tbody');
const count = document.getElementById('kept');
const columns = [...document.querySelectorAll('#seconds thead th')].map((cell) => cell.dataset.key);
const ROWS_MAX = 600, SILENT_MS = 40000, RETRY_MS = [500, 1000, 2000, 5000, 10000];
let last = 0, run = 0, seen = 0, held = {}, over = false, failures = 0;

const tell = (words, tone) => {
  if (state.textContent !== words) state.textContent = words;
  state.className = tone;
};

// A figure under the pointer is replaced later, so that it does not change while someone reads it.
const inUse = (section) => section.matches(':hover') && section.querySelector('figure') && matchMedia('(hover:hover)').matches;
const opened = (section) => [...section.querySelectorAll('details')].map((each) => each.open);

// On a phone each cell shows the name of its column. The script adds it, because the style sheet does not know the tables.
function label(table) {
  const names = table.dataset.l.split('|');
  for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, at) => at && (cell.dataset.h = names[at]));
}

function put(name, html) {
  const section = document.getElementById('s-' + name);
  if (!section) return;
  if (inUse(section)) {
    held[name] = html;
    return;
  }
  delete held[name];
  const open = opened(section);
  section.innerHTML = html;
  section.querySelectorAll('details').forEach((each, at) => (each.open = Boolean(open[at])));
  section.querySelectorAll('table[data-l]').forEach(label);
  prepare(section);
}

for (const section of document.querySelectorAll('main section'))
  section.addEventListener('pointerleave', () => {
    const name = section.id.slice(2);
    if (name in held) setTimeout(() => name in held && put(name, held[name]), 0);
  });

// A missing value was not measured, or is a count of 0; its cell stays empty.
function add(row) {
  const line = document.createElement('tr');
  for (const name of columns) {
    const cell = document.createElement('td');
    cell.textContent = row[name] ?? '';
    cell.dataset.h = name;
    line.append(cell);
  }
  body.prepend(line);
  if (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
  seen += 1;
  count.textContent = seen > ROWS_MAX ? `the last ${ROWS_MAX} of ${seen}` : `${seen}`;
}

function take(message) {
  if (message.id) {
    if (message.id <= last) return;
    last = message.id;
  }
  if (message.start) {
    run = message.start.run;
    seen = 0;
    body.replaceChildren();
    tell('live', 'good');
  } else if (message.second) {
    add(message.second.row);
    tell('live', 'good');
  } else if (message.end) {
    tell('the run has ended', 'soft');
  } else if (message.sections) {
    for (const name in message.sections) put(name, message.sections[name]);
  } else if (message.lost) {
    tell(`${message.lost} older lines are missing here: the charts and timeline.jsonl include them`, 'open');
  } else if (message.over) {
    over = true;
    document.documentElement.dataset.over = '1';
    tell('the command has ended: this page stays, without a connection', 'soft');
  }
  document.documentElement.dataset.last = last;
}

async function read() {
  const stop = new AbortController();
  let timer = 0;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(), SILENT_MS);
  };
  alive();
  try {
    const answer = await fetch('/stream?after=' + last, {
      headers: { Authorization: 'Bearer ' + key },
      cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer', signal: stop.signal,
    });
    if (answer.status === 401) {
      over = true;
      return tell(
        last ? 'this address now belongs to another run: the figures here are those of the earlier one'
          : 'the link has no key, or an old one: open the whole link that replay printed', 'bad');
    }
    if (!answer.ok) throw new Error('status ' + answer.status);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      failures = 0;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const text of lines) if (text) take(JSON.parse(text));
    }
  } finally {
    clearTimeout(timer);
  }
}

(async () => {
  tell('connecting', 'soft');
  while (!over) {
    try {
      await read();
    } catch (error) {
      // The loop tries again.
    }
    if (over) break;
    const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
    failures += 1;
    if (failures > 1) tell('no connection: trying again. The figures are the last ones received', 'bad');
    await new Promise((done) => setTimeout(done, wait));
  }
})();
