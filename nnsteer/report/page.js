const $ = id => document.getElementById(id), boxes = ["text", "kind", "variant"].map($);
const rows = $("answers") ? [...$("answers").tBodies[0].rows] : [];
const said = new Map();  // what is searched, by cell
for (const cell of rows.flatMap(row => [...row.cells])) {
  const texts = [...cell.querySelectorAll("p")].map(p => p.textContent);
  said.set(cell, texts.join(" ").toLowerCase());
}
function show() {
  const words = $("text").value.toLowerCase(), kind = $("kind").value;
  const chosen = $("variant").selectedIndex;  // beside the prompt and the first variant
  const kept = cell => cell.cellIndex < 2 || !chosen || cell.cellIndex === chosen + 1;
  for (const row of rows) {
    const cells = [...row.cells].filter(kept), own = row.dataset.kind;
    row.hidden = (kind && own !== kind && !own.startsWith(kind + ": "))
      || ($("changed").checked && !cells.some(cell => "c" in cell.dataset))
      || !cells.some(cell => said.get(cell).includes(words));
  }
  for (const row of $("answers").rows) for (const cell of row.cells) cell.hidden = !kept(cell);
  $("count").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} prompts`;
}
function keep() {  // in the address, so that a view can be linked to
  const view = new URLSearchParams();
  boxes.forEach(box => box.value && view.set(box.id, box.value));
  $("changed").checked && view.set("changed", 1);
  history.replaceState(null, "", "#" + view);
  show();
}
function restore() {
  const view = new URLSearchParams(location.hash.slice(1));
  boxes.forEach(box => box.value = view.get(box.id) || "");
  $("changed").checked = view.has("changed");
  show();
}
if (rows.length) {
  $("controls").hidden = false;
  $("controls").addEventListener("input", keep);
  window.addEventListener("hashchange", restore);
  restore();
}
