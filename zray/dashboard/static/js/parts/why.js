/* The chain of causes: why something is as it is. */

import { ApiError, get, isAborted } from "../api.js";
import { el, replace } from "./elements.js";
import { causeTone, seconds } from "./format.js";
import { card, nothing, PLURAL, thingLink, trouble } from "./things.js";

/** The causes as a list; each is what the one before waits for. */
export function chain(causes, ownId = "") {
  return el(
    "ol",
    { class: "why" },
    causes.map((cause, place) => {
      const linked = place > 0 && cause.id && cause.id !== ownId && cause.kind in PLURAL && cause.kind !== "driver";
      return el(
        "li",
        { "data-tone": causeTone(cause.code) },
        el(
          "div",
          { class: "line" },
          el("span", { class: "code" }, cause.code),
          place > 0 ? el("span", { class: "small soft" }, "because of ", cause.kind, " ", linked ? thingLink(cause.kind, cause.id, cause.name || undefined) : cause.name) : null,
          cause.since_s === null || cause.since_s === undefined ? null : el("span", { class: "small faint" }, `for ${seconds(cause.since_s)}`),
        ),
        el("div", { class: "says" }, cause.text),
        cause.details?.length
          ? el("dl", { class: "details" }, cause.details.map(({ name, text }) => [el("dt", null, name), el("dd", null, text)]))
          : null,
        cause.more ? el("div", { class: "small faint" }, `and ${cause.more} more`) : null,
        cause.advice ? el("div", { class: "advice" }, el("strong", null, "What would help: "), cause.advice) : null,
      );
    }),
  );
}

/** A card that asks why a thing is as it is. `load` asks again; `causes` are the last answer. */
export class WhyCard {
  constructor(subject, signal, heard = () => {}) {
    this.causes = [];
    this.over = false; // whether its thing has ended well
    this._subject = subject;
    this._signal = signal;
    this._heard = heard;
    this._body = el("div", { class: "body", "aria-live": "polite" }, el("span", { class: "soft" }, "Asking \u2026"));
    this.element = el("section", { class: "card", id: "why" }, el("header", null, el("h2", null, "Why")), this._body);
  }

  async load() {
    let told;
    try {
      told = await get(["why", this._subject], {}, this._signal);
    } catch (error) {
      if (isAborted(error)) return;
      if (error instanceof ApiError && error.status === 404) {
        // Of what is listed and over without a failure there is nothing more to say.
        this.element.hidden = this.over;
        this._heard(this.causes);
        if (!this.causes.length) replace(this._body, nothing("Nothing is known of it any more", "The head remembers the last of what is over, within a bound."));
      } else if (!this.causes.length) replace(this._body, trouble(error));
      return;
    }
    this.element.hidden = false;
    this._show(told.causes);
  }

  _show(causes) {
    const key = JSON.stringify(causes.map((cause) => [cause.code, cause.text, cause.details]));
    this.causes = causes;
    this._heard(causes);
    // Screen readers hear of it again only when the reason is another one.
    if (key !== this._key) replace(this._body, chain(causes, this._subject));
    this._key = key;
  }
}
