// What can be wrong with a log, or with waiting for it. The system's own errors are Node's, with `code`.

/** The base of all errors of this package. */
export class ImmutaError extends Error {
  constructor(path, what, position, sequence) {
    super(`${path}: ${what}`);
    this.name = new.target.name;
    this.path = path;
    this.position = position;
    this.sequence = sequence;
  }
}

export class NotFound extends ImmutaError {
  constructor(path) {
    super(path, "no such log");
  }
}

export class NotALog extends ImmutaError {
  constructor(path) {
    super(path, "not an ordinary file");
  }
}

export class Damaged extends ImmutaError {
  constructor(path, position, sequence, what) {
    const record = sequence === undefined ? "" : `, record ${sequence}`;
    super(path, `damaged at position ${position}${record}: ${what}`, position, sequence);
  }
}

export class TooLarge extends ImmutaError {
  constructor(path, position, sequence, size, most) {
    super(path, `record ${sequence} at position ${position} has ${size} bytes, more than maxRecord ${most}`, position, sequence);
  }
}

export class Replaced extends ImmutaError {
  constructor(path) {
    super(path, "it was removed, or another file has its name; all of it was read");
  }
}

export class TimedOut extends ImmutaError {
  constructor(path, limit) {
    super(path, `nothing came within ${limit} ms`);
  }
}

export class Stopped extends ImmutaError {
  constructor(path) {
    super(path, "stopped");
  }
}
