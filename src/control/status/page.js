// Keeps the page fresh when asked to. Without it the page is the same, as of when it was opened.
'use strict';

const box = document.getElementById('fresh');
const when = document.getElementById('when');
const KEY = 'weir-fresh';
let timer = 0;

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: 'no-store' });
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelector('main');
    const main = document.querySelector('main');
    // Who is reading a table or on a link there stays there.
    const at = main.contains(document.activeElement) ? path(main, document.activeElement) : null;
    const scrolled = [...main.querySelectorAll('.wide')].map((box) => box.scrollLeft);
    main.replaceChildren(...next.childNodes);
    [...main.querySelectorAll('.wide')].forEach((box, i) => { box.scrollLeft = scrolled[i] ?? 0; });
    if (at) follow(main, at)?.focus({ preventScroll: true });
    when.textContent = '';
  } catch {
    when.textContent = 'weir does not answer';
  }
  schedule();
}

function path(root, node) {
  const steps = [];
  for (; node !== root; node = node.parentNode) steps.unshift([...node.parentNode.children].indexOf(node));
  return steps;
}

function follow(root, steps) {
  return steps.reduce((node, step) => node?.children[step], root);
}

function schedule() {
  clearTimeout(timer);
  if (box.checked) timer = setTimeout(refresh, 5000);
}

try { box.checked = localStorage.getItem(KEY) !== 'no'; } catch { box.checked = true; }
box.addEventListener('change', () => {
  try { localStorage.setItem(KEY, box.checked ? 'yes' : 'no'); } catch { /* then it is forgotten */ }
  schedule();
});
schedule();
