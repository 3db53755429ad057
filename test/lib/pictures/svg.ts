/**
 * What the pictures of the documents are drawn with: text of SVG out of numbers. A picture brings its own ground and follows the reader's
 * preference for light or dark, as that of examples/pit-demo/picture.ts does.
 */

/** Bright enough on dark ground, dark enough on light. */
export const Colour = {
  GREEN: '#1f9d63',
  ORANGE: '#d9730d',
  PURPLE: '#8b66d6',
  BLUE: '#2f81d6',
  GREY: '#8b949e',
} as const;
export type Colour = (typeof Colour)[keyof typeof Colour];

const STYLE = `
  text { fill: #24292f; font: 12px system-ui, sans-serif }
  .title { font-size: 15px; font-weight: 600 }
  .strong { font-weight: 600 }
  .small { font-size: 11px; fill: #57606a }
  .ground { fill: #ffffff }
  .band { fill: #6e7781; opacity: 0.14 }
  .zone { fill: #6e7781; opacity: 0.08 }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round }
  .box { fill: #ffffff; stroke: #57606a; stroke-width: 1.2 }
  .arrow { fill: none; stroke: #57606a; stroke-width: 1.4; marker-end: url(#head) }
  .head { fill: #57606a }
  @media (prefers-color-scheme: dark) {
    text { fill: #d1d7e0 }
    .small { fill: #9198a1 }
    .ground, .box { fill: #0d1117 }
    .band { fill: #8b949e; opacity: 0.2 }
    .zone { fill: #8b949e; opacity: 0.12 }
    .grid { stroke: #30363d }
    .box, .arrow { stroke: #9198a1 }
    .head { fill: #9198a1 }
  }
`;
const HEAD =
  '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="head" d="M0,0 L8,4 L0,8 z"/></marker>';

export function picture(title: string, width: number, height: number, parts: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}">`,
    `<style>${STYLE}</style>`,
    `<defs>${HEAD}</defs>`,
    `<rect class="ground" width="${width}" height="${height}" rx="6"/>`,
    text(24, 28, title, { style: 'title' }),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

export interface TextOptions {
  readonly style?: string;
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly colour?: Colour;
}

export function text(x: number, y: number, content: string, { style, anchor, colour }: TextOptions = {}): string {
  const more = [style && `class="${style}"`, anchor && `text-anchor="${anchor}"`, colour && `style="fill: ${colour}"`];
  return `<text x="${px(x)}" y="${px(y)}" ${more.filter(Boolean).join(' ')}>${escaped(content)}</text>`.replace(
    ' >',
    '>',
  );
}

export function line(x1: number, y1: number, x2: number, y2: number, colour?: Colour, width = 1): string {
  const how = colour === undefined ? 'class="grid"' : `stroke="${colour}" stroke-width="${width}"`;
  return `<line ${how} x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}"/>`;
}

export function polyline(points: readonly (readonly [number, number])[], colour: Colour): string {
  return `<polyline class="line" stroke="${colour}" points="${points.map(([x, y]) => `${px(x)},${px(y)}`).join(' ')}"/>`;
}

export function rect(x: number, y: number, width: number, height: number, how: string): string {
  return `<rect ${how} x="${px(x)}" y="${px(y)}" width="${px(width)}" height="${px(height)}"/>`;
}

/** A box with lines of text in its middle, the first of them strong. */
export function box(
  x: number,
  y: number,
  width: number,
  height: number,
  lines: readonly string[],
  colour?: Colour,
): string {
  const top = y + height / 2 - (lines.length - 1) * 8 + 4;
  return [
    rect(
      x,
      y,
      width,
      height,
      `class="box" rx="5"${colour === undefined ? '' : ` style="stroke: ${colour}; stroke-width: 2"`}`,
    ),
    ...lines.map((each, index) =>
      text(x + width / 2, top + index * 16, each, { anchor: 'middle', style: index === 0 ? 'strong' : 'small' }),
    ),
  ].join('\n');
}

export function arrow(points: readonly (readonly [number, number])[]): string {
  return `<polyline class="arrow" points="${points.map(([x, y]) => `${px(x)},${px(y)}`).join(' ')}"/>`;
}

function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
