/**
 * Shell completion: scripts for bash, zsh and fish that ask this command (`vivarium complete -- WORDS...`) what could come next, and the
 * answer. Where it has none the shell completes names of files.
 */
import type { Command } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];
/** Commands whose arguments are NAME:PATH. */
const TAKES_PLACES: readonly string[] = ['cp', 'read', 'write', 'list'];

const SCRIPTS: Readonly<Record<Shell, string>> = {
  bash: `_vivarium() {
  local IFS=$'\\n'
  COMPREPLY=($(vivarium complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null))
}
complete -o default -F _vivarium vivarium
`,
  zsh: `#compdef vivarium
_vivarium() {
  local -a found
  found=("\${(@f)$(vivarium complete -- "\${(@)words[2,CURRENT]}" 2> /dev/null)}")
  if [[ -n "\${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _vivarium vivarium
`,
  fish: `complete -c vivarium -a '(vivarium complete -- (commandline -opc)[2..] (commandline -ct) 2> /dev/null)'
`,
};

export function completionScript(shell: Shell): string {
  return SCRIPTS[shell];
}

/** What the last of `words`, which may be empty, could become. Nothing for what is a file, or the guest's business. */
export function completions(program: Command, words: readonly string[], machines: () => readonly string[]): string[] {
  const last = words.at(-1) ?? '';
  const before = words.slice(0, -1);
  if (before.includes('--')) return [];
  let command = program;
  let at = 0;
  for (; at < before.length; at++) {
    const next = command.commands.find((known) => known.name() === before[at]);
    if (next === undefined) break;
    command = next;
  }
  const starting = (names: readonly string[]): string[] => names.filter((name) => name.startsWith(last)).sort();
  if (last.startsWith('-')) return starting(optionsOf(command));
  const rest = before.slice(at);
  if (takesValue(command, rest.at(-1))) return [];
  if (command.commands.length > 0) return rest.length === 0 ? starting(commandsOf(command)) : [];
  const position = positionals(command, rest);
  const argument = command.registeredArguments[position]?.name();
  if (argument === 'name') return starting(machines());
  if (TAKES_PLACES.includes(command.name()) && argument !== undefined)
    return starting(machines().map((name) => `${name}:`));
  return [];
}

/** Hidden ones are this command's own. */
function commandsOf(command: Command): string[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .map((known) => known.name());
}

function optionsOf(command: Command): string[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .flatMap(({ long }) => (long === undefined || long === null ? [] : [long]));
}

function takesValue(command: Command, word: string | undefined): boolean {
  if (word === undefined) return false;
  return command.options.some((option) => option.required && (option.long === word || option.short === word));
}

/** How many of the words are arguments. */
function positionals(command: Command, words: readonly string[]): number {
  return words.filter((word, at) => !word.startsWith('-') && !takesValue(command, words[at - 1])).length;
}
