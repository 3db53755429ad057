/**
 * The simple commands of a few lines of shell, as far as documents use it: words in quotes, comments, pipes, `&&`, `;` and
 * redirections. Not a shell: what it does not know (substitutions, loops) it refuses, so that nothing passes unread.
 */

/** The words of each simple command, in their order, without redirections. @throws Error for what it does not know */
export function simpleCommands(text: string): string[][] {
  const commands: string[][] = [];
  for (const line of text.replaceAll('\\\n', '').split('\n')) {
    let words: string[] = [];
    for (const token of tokens(line)) {
      if (typeof token === 'string') {
        words.push(token);
      } else {
        commands.push(words);
        words = [];
      }
    }
    commands.push(words);
  }
  return commands.filter((words) => words.length > 0);
}

/** Words, and null where a command ends. */
function* tokens(line: string): Generator<string | null> {
  let word: string | undefined;
  let isTarget = false;
  const finish = function* (): Generator<string> {
    if (word !== undefined && !isTarget) yield word;
    if (word !== undefined) isTarget = false;
    word = undefined;
  };
  for (let at = 0; at < line.length; at++) {
    const sign = line[at]!;
    if (sign === "'" || sign === '"') {
      const end = line.indexOf(sign, at + 1);
      if (end < 0) throw new Error(`a quote that does not end: ${line}`);
      const quoted = line.slice(at + 1, end);
      if (sign === '"' && /[`\\]|\$\(/.test(quoted)) throw new Error(`what is this in quotes: ${line}`);
      word = `${word ?? ''}${quoted}`;
      at = end;
    } else if (sign === ' ') {
      yield* finish();
    } else if (sign === '#' && word === undefined) {
      break;
    } else if (sign === '>') {
      if (word !== undefined && /^\d$/.test(word)) word = undefined;
      yield* finish();
      if (line[at + 1] === '>') at++;
      isTarget = true;
    } else if (sign === '|' || sign === '&' || sign === ';') {
      if (sign === '&' && isTarget && word === undefined) {
        word = '&';
        continue;
      }
      yield* finish();
      if (sign === '&' && line[at + 1] !== '&') throw new Error(`a command in the background: ${line}`);
      if (line[at + 1] === sign) at++;
      yield null;
    } else if ('`(){}<*?'.includes(sign) || (sign === '$' && /[({]/.test(line[at + 1] ?? ''))) {
      throw new Error(`'${sign}' is more shell than is known here: ${line}`);
    } else {
      word = `${word ?? ''}${sign}`;
    }
  }
  yield* finish();
}
