// The script of every page: it shows values under the pointer, zooms a part of the x axis, and searches lists.
// A report without it is complete: the charts are drawn already, and the tables contain the figures.
'use strict';

const short = (v) => (Math.abs(v) >= 1000 ? Math.round(v).toLocaleString('en') : String(+v.toPrecision(3)));
const units = [['s', 1e9], ['ms', 1e6], ['µs', 1e3]];
const say = {
  latency(v) {
    const found = units.find(([, ns]) => v >= 0.9995 * ns) || ['ns', 1];
    return short(v / found[1]) + ' ' + found[0];
  },
  rate: (v) => short(v) + '/s',
  share: (v) => short(100 * v) + '%',
  number: short,
};

// Converts the values of an axis to positions from 0 to 1 and back, as replay/report/axes.py does, and to text.
function scaleOf(axis) {
  const bend = (v) => (axis.log ? Math.log(v) : v);
  const low = bend(axis.low), length = bend(axis.high) - low;
  return {
    share: (v) => (bend(v) - low) / length,
    value: (s) => (axis.log ? Math.exp(low + s * length) : low + s * length),
    words(v) {
      if (axis.kind === 'percentile') return 'p' + +(100 * (1 - 1 / v)).toPrecision(6);
      if (axis.kind !== 'time') return short(v);
      const since = short(v) + ' s';
      if (axis.start === undefined) return since;
      const moment = new Date(1e3 * (axis.start + v * axis.speed));
      if (!Number.isFinite(+moment)) return since;
      return moment.toISOString().slice(11, 19) + ' (' + since + ' after the start)';
    },
  };
}

// Returns the values nearest to a position on the axis, as lines of text. The first line is the value on the axis.
function readings(data, scale, at) {
  let best = null, gap = Infinity;
  for (const series of data.s)
    (series.at || data.at).forEach((v, n) => {
      const away = Math.abs(scale.share(v) - at);
      if (series.v[n] !== null && away < gap) [gap, best] = [away, scale.share(v)];
    });
  if (best === null) return null;
  const lines = [];
  let place = null;
  for (const series of data.s) {
    const where = series.at || data.at;
    let near = 0;
    where.forEach((v, n) => {
      if (Math.abs(scale.share(v) - best) < Math.abs(scale.share(where[near]) - best)) near = n;
    });
    if (series.v[near] === null || Math.abs(scale.share(where[near]) - best) > 0.02) continue;
    if (place === null || Math.abs(scale.share(where[near]) - best) < 1e-9) place = where[near];
    lines.push(series.n + ' ' + say[series.u](series.v[near]));
  }
  return { at: best, lines: [scale.words(place), ...lines] };
}

function make(name, given) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const key in given) made.setAttribute(key, given[key]);
  return made;
}

function enliven(figure, svg, data, tip) {
  const scale = scaleOf(data.x), plot = svg.querySelector('.plot');
  const [left, top, wide, tall] = ['x', 'y', 'width', 'height'].map((name) => +plot.getAttribute(name));
  const ticks = svg.querySelector('.ticks'), upright = svg.querySelector('.upright'), whole = [...ticks.childNodes];
  const held = make('rect', { fill: 'currentColor', 'fill-opacity': 0.12, y: top, height: tall, width: 0 });
  const rule = make('path', { stroke: 'currentColor', 'stroke-opacity': 0.5, d: '' });
  svg.append(held, rule);
  let from = 0, to = 1, start = null;

  const unit = () => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const shareAt = (event) => {
    const inside = ((event.clientX - svg.getBoundingClientRect().left) / unit() - left) / wide;
    return from + Math.min(Math.max(inside, 0), 1) * (to - from);
  };
  const pixel = (share) => left + ((share - from) / (to - from)) * wide;
  const hide = () => {
    tip.hidden = true;
    rule.setAttribute('d', '');
  };
  const show = (event) => {
    const found = readings(data, scale, shareAt(event));
    if (found === null) return hide();
    tip.replaceChildren(
      ...found.lines.map((words, n) => {
        const line = document.createElement(n ? 'div' : 'b');
        line.textContent = words;
        return line;
      }),
    );
    tip.hidden = false;
    const x = pixel(found.at), inside = x >= left - 1 && x <= left + wide + 1;
    rule.setAttribute('d', inside ? `M${x} ${top}v${tall}` : '');
    const side = x * unit() < figure.clientWidth / 2 ? 12 : -12 - tip.offsetWidth;
    tip.style.left = Math.max(0, Math.min(x * unit() + side, figure.clientWidth - tip.offsetWidth)) + 'px';
  };
  const zoom = (a, b) => {
    [from, to] = [a, b];
    const all = a === 0 && b === 1;
    plot.setAttribute('viewBox', `${a * wide} 0 ${(b - a) * wide} ${tall}`);
    upright.setAttribute('display', all ? 'inline' : 'none');
    const ends = [[0, 'start'], [0.5, 'middle'], [1, 'end']].map(([at, anchor]) => {
      const label = make('text', { x: left + at * wide, y: top + tall + 18, 'text-anchor': anchor });
      label.textContent = scale.words(scale.value(a + at * (b - a)));
      return label;
    });
    ticks.replaceChildren(...(all ? whole : ends));
  };

  svg.addEventListener('pointermove', (event) => {
    show(event);
    if (start === null) return;
    const [a, b] = [start, shareAt(event)].sort((p, q) => p - q).map(pixel);
    held.setAttribute('x', a);
    held.setAttribute('width', b - a);
  });
  svg.addEventListener('pointerleave', () => {
    hide();
    start = null;
    held.setAttribute('width', 0);
  });
  if (!data.x.zoom) return;
  svg.addEventListener('pointerdown', (event) => {
    if (event.pointerType === 'touch') return;
    start = shareAt(event);
    event.preventDefault();
  });
  svg.addEventListener('pointerup', (event) => {
    if (start === null) return;
    const [a, b] = [start, shareAt(event)].sort((p, q) => p - q);
    start = null;
    held.setAttribute('width', 0);
    if (pixel(b) - pixel(a) > 8) zoom(a, b);
  });
  svg.addEventListener('dblclick', () => zoom(0, 1));
}

// Makes tables that are wider than the page scrollable with the keyboard, and charts show values under the pointer.
function prepare(root) {
  for (const box of root.querySelectorAll('.scroll')) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  root.querySelectorAll('figure').forEach(show);
}

function show(figure) {
  const block = figure.querySelector('script');
  if (!block) return;
  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  figure.append(tip);
  figure.classList.add('live');
  const data = JSON.parse(block.textContent);
  for (const svg of figure.querySelectorAll('svg[role]')) enliven(figure, svg, data, tip);
  if (!data.x.zoom) return;
  const hint = document.createElement('p');
  hint.className = 'hint';
  hint.textContent = 'drag to zoom, double-click to go back';
  figure.after(hint);
}

// Adds a search box to a list of blocks: by text, and by the kind that the summary of a block shows.
for (const list of document.querySelectorAll('.fields')) {
  const blocks = [...list.querySelectorAll('.field')];
  const kindOf = (block) => block.querySelector('summary span:last-of-type').textContent;
  const kinds = [...new Set(blocks.map(kindOf))].sort();
  const bar = document.createElement('div'), text = document.createElement('input');
  const kind = document.createElement('select'), count = document.createElement('span');
  bar.className = 'search';
  text.type = 'search';
  text.placeholder = 'search fields, routes and values';
  text.setAttribute('aria-label', text.placeholder);
  kind.setAttribute('aria-label', 'kind of difference');
  kind.append(...['', ...kinds].map((name) => new Option(name || 'all kinds', name)));
  count.className = 'soft';
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const block of blocks) {
      const content = block.textContent.toLowerCase();
      const fits = words.every((word) => content.includes(word)) && (!kind.value || kindOf(block) === kind.value);
      block.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown + ' of ' + blocks.length;
  };
  text.addEventListener('input', filter);
  kind.addEventListener('change', filter);
  bar.append(text, kind, count);
  list.before(bar);
  filter();
}
prepare(document);
