/** The repository's documents and the fenced blocks in them, each with a name that stays while lines move: FILE > HEADING > N. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

export const ROOT = path.resolve(import.meta.dirname, '../..');

export interface DocumentBlock {
  /** The document, the heading that it stands under, and its number among the blocks there, from 1. */
  readonly name: string;
  readonly file: string;
  /** Of the fence that opens it, from 1. */
  readonly line: number;
  /** What stands behind the fence; '' for none. */
  readonly language: string;
  readonly text: string;
}

/** Every document that is committed, by its path from the root. */
export const documents = (): readonly string[] =>
  execFileSync('git', ['ls-files', '-z', '*.md'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
    .split('\0')
    .filter((file) => file !== '' && existsSync(path.join(ROOT, file)));

/** @throws Error for a fence that is not closed */
export function blocksOf(file: string, text = readFileSync(path.join(ROOT, file), 'utf8')): DocumentBlock[] {
  const blocks: DocumentBlock[] = [];
  let heading = '';
  let open: { line: number; language: string; indent: string; lines: string[] } | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    const fence = /^( *)```(.*)$/.exec(line);
    if (open === undefined) {
      heading = /^#{1,6} (.*)$/.exec(line)?.[1] ?? heading;
      if (fence !== null) open = { line: index + 1, language: fence[2]!.trim(), indent: fence[1]!, lines: [] };
    } else if (fence === null) {
      open.lines.push(line.startsWith(open.indent) ? line.slice(open.indent.length) : line);
    } else {
      const place = `${file} > ${heading}`;
      const number = blocks.filter(({ name }) => name.startsWith(`${place} > `)).length + 1;
      const { line, language, lines } = open;
      blocks.push({
        name: `${place} > ${number}`,
        file,
        line,
        language,
        text: lines.map((each) => `${each}\n`).join(''),
      });
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line}: the block that begins here does not end`);
  return blocks;
}

/** The text of the block of that name. @throws Error when there is none */
export function blockNamed(name: string): string {
  const found = blocksOf(name.split(' > ')[0]!).find((block) => block.name === name);
  if (found === undefined) throw new Error(`there is no block ${name}`);
  return found.text;
}
