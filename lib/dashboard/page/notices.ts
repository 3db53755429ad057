/** What has become of what was asked for: lines in a corner, read aloud when they come. A failure stays until it is put away. */
import { button, byId, make, setText } from './elements.js';
import type { FailureText } from './protocol.js';

const SHOWN_MS = 6000;

export interface Notice {
  progress(text: string): void;
  /** Undefined: it went well. */
  end(failure: FailureText | undefined): void;
}

/** `what` as in 'stop box'. */
export function notice(what: string): Notice {
  const text = make('span', {}, `${what} ...`);
  const line = make('div', { class: 'notice' }, text);
  byId('notices').append(line);
  return {
    progress: (more) => setText(text, `${what}: ${more}`),
    end: (failure) => {
      if (failure === undefined) {
        setText(text, `${what}: done`);
        setTimeout(() => line.remove(), SHOWN_MS);
        return;
      }
      const cure = failure.cure === undefined ? '' : ` (to cure it: ${failure.cure})`;
      setText(text, `${what}: ${failure.message}${cure}`);
      line.classList.add('failure');
      line.append(button('Put away', () => line.remove()));
    },
  };
}
