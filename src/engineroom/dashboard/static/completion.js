// A text box for queries that completes the keys of records and the operators.

import { h } from "./dom.js";

const OPERATORS = {
  $eq: "equal", $ne: "not equal", $gt: "greater, later", $gte: "greater or equal", $lt: "less, earlier", $lte: "less or equal",
  $in: "one of a list", $nin: "none of a list", $and: "all of these queries", $or: "any of these queries", $nor: "none of these queries",
  $not: "the condition does not hold", $exists: "the key is there", $regex: "a regular expression", $glob: "a pattern with * and ?",
  $elemMatch: "an element of a list", $size: "the length of a list", $all: "a list with all of these", $type: "the type", $mod: "a remainder",
};

/** The box with its suggestions. `keys`: a promise of [{name, meaning}]. */
export function completion(box, keys) {
  const list = h("ul", { id: "suggestions", role: "listbox", hidden: true });
  const place = h("div", { class: "suggest" }, box, list);
  let known = [], chosen = -1, word = "";
  keys.then((found) => {
    known = [...found.map((k) => [k.name, k.meaning]), ...Object.entries(OPERATORS),
      ["result_content.ename", "the class of the error"], ["attempts.cause", "how an attempt ended"]];
  });
  box.setAttribute("role", "combobox");
  box.setAttribute("aria-controls", "suggestions");
  box.setAttribute("aria-expanded", "false");
  box.setAttribute("aria-autocomplete", "list");

  function close() { list.hidden = true; chosen = -1; box.setAttribute("aria-expanded", "false"); box.removeAttribute("aria-activedescendant"); }

  function look() {
    const before = box.value.slice(0, box.selectionStart);
    const found = /["']([\w.$]*)$/.exec(before);
    if (!found || !found[1]) return close();
    word = found[1];
    const matches = known.filter(([name]) => name.startsWith(word) && name !== word).slice(0, 12);
    if (!matches.length) return close();
    chosen = -1;
    list.replaceChildren(...matches.map(([name, meaning], i) => h("li", { role: "option", id: `suggestion-${i}`, "data-name": name, "aria-selected": "false",
      onmousedown: (e) => { e.preventDefault(); take(name); } }, h("span", { class: "mono" }, name), " ", h("span", { class: "soft small" }, meaning))));
    list.hidden = false;
    box.setAttribute("aria-expanded", "true");
  }

  function take(name) {
    const end = box.selectionStart, quote = box.value[end - word.length - 1], after = box.value.slice(end);
    const closing = after.startsWith(quote) ? "" : quote;
    box.setRangeText(name + closing, end - word.length, end, "end");
    close();
  }

  box.addEventListener("input", look);
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (e) => {
    if (list.hidden) return;
    const size = list.children.length;
    if (e.key === "Escape") { e.preventDefault(); return close(); }
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      e.preventDefault();
      chosen = (chosen + (e.key === "ArrowDown" ? 1 : size - 1) + (chosen < 0 && e.key === "ArrowUp" ? 1 : 0)) % size;
      [...list.children].forEach((li, i) => li.setAttribute("aria-selected", String(i === chosen)));
      box.setAttribute("aria-activedescendant", `suggestion-${chosen}`);
      list.children[chosen].scrollIntoView({ block: "nearest" });
    } else if ((e.key === "Enter" || e.key === "Tab") && (chosen >= 0 || e.key === "Tab")) {
      e.preventDefault();
      take(list.children[Math.max(0, chosen)].dataset.name);
    }
  });
  return place;
}
