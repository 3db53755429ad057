/**
 * Draws the README's picture of a terminal: text on stdin (what `tmux capture-pane -p` gives after a real run) becomes an
 * SVG on stdout. `node scripts/terminal-picture.mjs [TITLE] < capture.txt > docs/terminal.svg`
 */
import { readFileSync } from 'node:fs';
import process from 'node:process';

const CELL_WIDTH = 8.4;
const LINE_HEIGHT = 18;
const PADDING = 14;
const BAR_HEIGHT = 28;

const title = process.argv[2] ?? '';
const lines = readFileSync(0, 'utf8').replace(/\s+$/, '').split('\n');
const columns = Math.max(80, ...lines.map((line) => line.length));
const width = Math.ceil(columns * CELL_WIDTH + 2 * PADDING);
const height = lines.length * LINE_HEIGHT + 2 * PADDING + BAR_HEIGHT;

const escape = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const rows = lines.map((line, index) => {
  const y = BAR_HEIGHT + PADDING + (index + 0.75) * LINE_HEIGHT;
  return `  <text x="${PADDING}" y="${y}">${escape(line)}</text>`;
});

console.log(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" role="img" aria-label="${escape(title)}">
<rect width="${width}" height="${height}" rx="6" fill="#16181d"/>
<rect width="${width}" height="${BAR_HEIGHT}" rx="6" fill="#2a2e37"/>
<text x="${width / 2}" y="19" fill="#9aa3b2" font-family="sans-serif" font-size="12" text-anchor="middle">${escape(title)}</text>
<g fill="#d7dae0" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">
${rows.join('\n')}
</g>
</svg>`);
