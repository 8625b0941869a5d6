/* Rows of one kind, loaded page by page as they are wanted. Owns cursors and the bound on what is kept. */

import { ApiError, get, isAborted } from "../api.js";

const FIRST = 200;
const PAGE = 1000;
export const ROWS_MAX = 100_000;

export class Pages {
  /** kind: as in the address; pick: record -> what is kept of it; heard: called after each change. */
  constructor(kind, pick, heard, signal) {
    this.kind = kind;
    this.rows = [];
    this.total = 0;
    this.dropped = 0;
    this.unlisted = 0;
    this.next = null;
    this.error = null;
    this.expired = false; // the head has forgotten where this list was
    this.loading = false;
    this.loadedAt = 0;
    this._filters = [];
    this._pick = pick;
    this._heard = heard;
    this._signal = signal;
    this._run = 0;
  }

  /** Whether all that match are here. */
  get whole() {
    return this.next === null && !this.error && this.loadedAt > 0;
  }

  get full() {
    return this.rows.length >= ROWS_MAX;
  }

  /** Begin anew, with other filters ([key, value]) if given; what is there stays until the answer. */
  begin(filters = this._filters) {
    this._filters = filters;
    return this._load(null);
  }

  /** The next page, if there is one and none is being loaded. */
  async more() {
    if (this.loading || this.next === null || this.full || this.error || this.expired) return false;
    await this._load(this.next);
    return !this.error && !this.expired;
  }

  async _load(cursor) {
    const run = ++this._run;
    this.loading = true;
    this.error = null;
    try {
      const filter = this._filters.map(([key, value]) => `${key}=${value}`);
      const told = await get([this.kind], { limit: cursor ? PAGE : FIRST, cursor, filter }, this._signal);
      if (run !== this._run) return;
      const found = told.items.map(this._pick);
      this.rows = cursor ? this.rows.concat(found) : found;
      Object.assign(this, { total: told.total, dropped: told.dropped, unlisted: told.unlisted, next: told.next, loadedAt: Date.now(), expired: false });
    } catch (error) {
      if (run !== this._run || isAborted(error)) return;
      if (cursor && error instanceof ApiError && error.status === 400) this.expired = true;
      else this.error = error;
    }
    this.loading = false;
    this._heard();
  }
}
