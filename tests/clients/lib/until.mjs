// Waiting with a deadline. Nothing here sleeps for a fixed time and hopes.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Thrown inside a probe to say why it does not hold yet. */
export class NotYet extends Error {}

/**
 * Calls `probe` until it returns something other than undefined, null or false; the last reason ends up in the error.
 */
export async function until(what, limitMs, probe, everyMs = 150) {
  const deadline = Date.now() + limitMs;
  let why = 'never looked';
  for (;;) {
    try {
      const found = await probe();
      if (found !== undefined && found !== null && found !== false) return found;
      why = `it was ${found}`;
    } catch (error) {
      if (!(error instanceof NotYet)) throw error;
      why = error.message;
    }
    if (Date.now() >= deadline) throw new Error(`${what}: not within ${limitMs} ms; ${why}`);
    await sleep(everyMs);
  }
}

/** The result of `promise`, or an error that names what took too long. */
export async function within(what, limitMs, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no answer within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
