/**
 * The documents keep to what exists: links lead somewhere, files, npm scripts and bench programs that are named are there. Their
 * blocks of code are held by document-blocks.test.ts.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROUTES } from '../../lib/control/routes.js';
import { helpOf } from '../lib/command-grammar.js';
import { documents, ROOT } from '../lib/document-blocks.js';

const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8');
const withoutCode = (text: string) => text.replace(/```[\s\S]*?```/g, '').replace(/`[^`\n]*`/g, '');
const manifest = JSON.parse(read('package.json')) as { scripts: Record<string, string> };

/** The anchor that GitHub gives a heading. */
const anchor = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[`*]/g, '')
    .replace(/[^\p{Letter}\p{Number}\s_-]/gu, '')
    .trim()
    .replace(/\s/g, '-');

const anchorsOf = (file: string) => [...read(file).matchAll(/^#{1,6} (.*)$/gm)].map((match) => anchor(match[1]!));

describe.each(documents())('%s', (file) => {
  const text = read(file);

  it('links only to what exists', () => {
    const broken = [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)]
      .map((match) => match[1]!)
      .filter((target) => !/^[a-z]+:/.test(target))
      .filter((target) => {
        const [name, fragment] = target.split('#') as [string, string | undefined];
        const linked = name === '' ? file : path.posix.join(path.posix.dirname(file), name);
        if (!existsSync(path.join(ROOT, linked))) return true;
        return fragment !== undefined && linked.endsWith('.md') && !anchorsOf(linked).includes(fragment);
      });
    expect(broken).toEqual([]);
  });

  it('names only files of the repository that exist', () => {
    const named = [...text.matchAll(/`((?:lib|native|scripts|test|bench|docs|examples|guest|\.ci)\/[\w./-]*)`/g)];
    const missing = named.map((match) => match[1]!).filter((name) => !existsSync(path.join(ROOT, name)));
    expect(missing).toEqual([]);
  });

  it('names only npm scripts that exist', () => {
    const named = [...text.matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]!);
    expect(named.filter((name) => !(name in manifest.scripts))).toEqual([]);
  });

  it('names in its sentences only commands of vivarium, and options of theirs, that exist', async () => {
    const named = [...text.matchAll(/`(?:npx )?vivarium ([a-z]+)([^`\n]*)`/g)];
    const unknown = named.map(async ([, command, rest]) => {
      const help = await helpOf(command!).catch(() => '');
      if (help === '') return [command];
      // What stands behind -- is the guest's.
      const options = rest!.split(' -- ')[0]!.match(/(?<= |\[)--?[a-z][\w-]*/g) ?? [];
      return options.filter((option) => !new RegExp(`(^|\\s)${option}(?![\\w-])`, 'm').test(help));
    });
    expect((await Promise.all(unknown)).flat()).toEqual([]);
  });

  it('names only bench programs that exist', () => {
    const programs = [...text.matchAll(/npm run bench -- (\w+)/g)].map((match) => match[1]!);
    expect(programs.filter((name) => name !== 'NAME' && !existsSync(path.join(ROOT, `bench/${name}.ts`)))).toEqual([]);
  });
});

it('docs/control.md names every route of the control socket, and no other', () => {
  const named = [...read('docs/control.md').matchAll(/\/v1\/[\w/:.]*\w/g)].map(([path]) => path);
  expect([...new Set(named)].sort()).toEqual(
    [...new Set([...ROUTES.map(({ path }) => path), '/v1/openapi.json'])].sort(),
  );
});

it('SPECIFICATION.md shows the figures of bench/results/', async () => {
  // @ts-expect-error -- a script without types
  const { withFigures } = (await import('../../scripts/figures.mjs')) as { withFigures: (text: string) => string };
  expect(read('SPECIFICATION.md')).toBe(withFigures(read('SPECIFICATION.md')));
});
