// The page. It shows a model and asks a backend; the page is the same for every backend.
//
// makeBackend(model, data) returns an object with asynchronous functions. D latents travel as arrays of numbers, images
// as Uint8Array [H * W * C]:
//   curves(cluster)                         {latent, z, density, base}, each [D][K]; cluster is null for all
//   decode(latents)                         {images, clusters}: clusters [N][C] has p(c | z), or is null
//   draw({latent, locked, cluster, num})    {latents}
//   path({first, second, kind, num})        {latents}
// and, where it can read data (`reads`):
//   heldOut(first, num)                     {images, labels}
//   read({index} or {file})                 {image, reconstruction, latents, clusters, score}

const content = JSON.parse(document.getElementById("content").textContent);
const model = content.model;
const backend = makeBackend(model, content.data);
const [height, width, channels] = model.image_shape;
const NUM_LATENTS = 24;
const NUM_DATA = 24;
const NUM_DRAWS = 12;
const NUM_ON_PATH = 33;
const SHOWN_ON_PATH = 4; // every fourth has a picture

const state = {
  latent: null,
  locked: model.names.map(() => false),
  cluster: null,
  curves: null,
  controls: [],
  firstDatum: 0,
  reading: null,
  ends: [null, null],
  path: null,
};

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Pixels on a canvas of their own size; the style sheet enlarges it.
function paint(canvas, pixels) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[channels * i + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const thumb = (pixels) => paint(make("canvas", { className: "thumb" }), pixels);
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

// The shortest decimal that is this float32 number.
function shortest(value) {
  for (let digits = 6; digits < 10; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(value);
}

function fail(error) {
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
}

// Runs what a control asks; a sentence says what went wrong.
function doing(action) {
  return async (...given) => {
    byId("problem").hidden = true;
    try {
      await action(...given);
    } catch (error) {
      fail(error);
    }
  };
}

// Whether nothing of this name was asked since: answers may come in another order than they were asked for.
const asked = {};
function newest(name) {
  const mine = (asked[name] = (asked[name] ?? 0) + 1);
  return () => mine === asked[name];
}

// ---- the present latents ----

let isWanted = false;
let isBusy = false;

// Decodes the present latents; while an answer is awaited, only the last of the handle's places is kept.
async function show() {
  writeCode();
  isWanted = true;
  if (isBusy) return;
  isBusy = true;
  try {
    while (isWanted) {
      isWanted = false;
      const latent = state.latent.slice();
      const { images, clusters } = await backend.decode([latent]);
      paint(byId("image"), images[0]);
      byId("image").dataset.latent = latent.join(",");
      if (clusters) {
        byId("belongs").textContent = `p(cluster | latents): ${heaviest(clusters[0])}`;
        byId("belongs").hidden = false;
      }
    }
  } finally {
    isBusy = false;
  }
}

function heaviest(probabilities) {
  const order = probabilities.map((share, c) => [share, c]).sort((a, b) => b[0] - a[0]);
  return order
    .slice(0, 4)
    .filter(([share], i) => i === 0 || share >= 0.01)
    .map(([share, c]) => `${c} (${percent(share)})`)
    .join(", ");
}

async function moveTo(latent) {
  state.latent = latent.map(Math.fround);
  state.controls.forEach(place);
  await show();
}

async function draw(locked) {
  const { latents } = await backend.draw({ latent: state.latent, locked, cluster: state.cluster, num: 1 });
  await moveTo(latents[0]);
}

function writeCode() {
  const [rows, columns] = model.event_shape.length === 2 ? model.event_shape : [1, state.latent.length];
  const lines = [];
  for (let i = 0; i < rows; i++) {
    lines.push(`[${state.latent.slice(i * columns, (i + 1) * columns).map(shortest).join(", ")}]`);
  }
  const values = model.event_shape.length === 2 ? `[\n    ${lines.join(",\n    ")},\n]` : lines[0];
  byId("code").textContent = [
    "import jax.numpy as jnp",
    "import kaem_jax as kaem",
    "",
    `run = kaem.load(${JSON.stringify(model.workdir)}, ${model.step})`,
    `z = jnp.array(${values})`,
    `image = run.model.decode(run.params, z)  # [${model.data_shape.join(", ")}], E[x | z]`,
  ].join("\n");
}

// ---- latents ----

// The value at x between points whose abscissas rise; constant beyond the ends.
function interpolate(x, abscissas, ordinates) {
  let low = 0;
  let high = abscissas.length - 1;
  if (x <= abscissas[low]) return ordinates[low];
  if (x >= abscissas[high]) return ordinates[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (abscissas[middle] <= x) low = middle;
    else high = middle;
  }
  const share = (x - abscissas[low]) / (abscissas[high] - abscissas[low]);
  return ordinates[low] + share * (ordinates[high] - ordinates[low]);
}

// Axis and latents are the same numbers, except where latents are standard normal coordinates.
const onAxis = (control, latent) =>
  control.isSame ? latent : interpolate(latent, state.curves.latent[control.index], state.curves.z[control.index]);
const offAxis = (control, z) =>
  control.isSame ? z : interpolate(z, state.curves.z[control.index], state.curves.latent[control.index]);

function place(control) {
  const z = onAxis(control, state.latent[control.index]);
  control.range.value = z;
  control.output.value = z.toFixed(3);
  control.range.setAttribute("aria-valuetext", z.toFixed(3));
}

function outline(z, density, top) {
  const low = z[0];
  const scale = 1000 / (z[z.length - 1] - low);
  return z.map((x, k) => `${((x - low) * scale).toFixed(1)},${(100 - (95 * density[k]) / top).toFixed(2)}`).join(" L");
}

function drawCurve(control) {
  const { z, density, base } = state.curves;
  const i = control.index;
  const top = Math.max(...density[i], ...base[i]);
  control.learned.setAttribute("d", `M0,100 L${outline(z[i], density[i], top)} L1000,100`);
  control.base.setAttribute("d", `M${outline(z[i], base[i], top)}`);
}

function makeControl(index) {
  const space = "http://www.w3.org/2000/svg";
  const z = state.curves.z[index];
  const [low, high] = [z[0], z[z.length - 1]];
  const name = model.names[index];
  const control = { index, isSame: z.every((value, k) => value === state.curves.latent[index][k]) };
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 1000 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const part of ["learned", "base"]) {
    control[part] = document.createElementNS(space, "path");
    control[part].setAttribute("class", part);
    svg.append(control[part]);
  }
  control.range = make("input", { type: "range", min: low, max: high, step: (high - low) / 500, "aria-label": name });
  control.output = make("output");
  control.lock = make("input", { type: "checkbox", disabled: !model.can_lock });
  const head = make(
    "div",
    { className: "head" },
    make("b", {}, name),
    make("span", { className: "share" }, percent(model.shares[index])),
    control.output,
    make("label", {}, control.lock, " lock"),
  );
  const ends = make("div", { className: "ends" }, make("span", {}, low.toFixed(1)), make("span", {}, high.toFixed(1)));
  control.element = make("div", { className: "latent" }, head, make("div", { className: "curve" }, svg, control.range), ends);
  control.range.addEventListener(
    "input",
    doing(async () => {
      state.latent[index] = Math.fround(offAxis(control, Number(control.range.value)));
      control.output.value = Number(control.range.value).toFixed(3);
      control.range.setAttribute("aria-valuetext", control.output.value);
      await show();
    }),
  );
  control.lock.addEventListener("change", () => setLock(control, control.lock.checked));
  drawCurve(control);
  place(control);
  return control;
}

function setLock(control, isLocked) {
  state.locked[control.index] = isLocked;
  control.lock.checked = isLocked;
  control.element.classList.toggle("locked", isLocked);
}

function showMoreLatents() {
  const shown = state.controls.length;
  for (const index of model.order.slice(shown, shown + NUM_LATENTS)) {
    const control = makeControl(index);
    state.controls.push(control);
    byId("latents").append(control.element);
  }
  byId("more-latents").hidden = state.controls.length === model.order.length;
}

// ---- clusters ----

async function chooseCluster(cluster) {
  const isNewest = newest("cluster");
  state.cluster = cluster;
  const curves = await backend.curves(cluster);
  if (!isNewest()) return;
  state.curves = curves;
  state.controls.forEach(drawCurve);
  await draw(state.locked);
}

async function showClusters() {
  const order = model.clusters.map((cluster, c) => c).sort((a, b) => model.clusters[b].share - model.clusters[a].share);
  const add = (cluster, ...label) => {
    const radio = make("input", { type: "radio", name: "cluster", value: cluster ?? "all", checked: cluster === null });
    radio.addEventListener("change", doing(() => chooseCluster(cluster)));
    byId("clusters").append(make("label", {}, radio, ...label));
  };
  add(null, "all clusters");
  const canvases = order.map((c) => {
    const canvas = make("canvas", { width, height });
    add(c, canvas, `${c} · ${percent(model.clusters[c].share)}`);
    return canvas;
  });
  byId("clusters-section").hidden = false;
  const { images } = await backend.decode(order.map((c) => model.clusters[c].median));
  images.forEach((pixels, i) => paint(canvases[i], pixels));
}

// ---- images to choose from ----

// Buttons with pictures; the one that was chosen last is marked.
function fill(strip, images, choose, label) {
  strip.replaceChildren(
    ...images.map((pixels, i) => {
      const button = make("button", { type: "button", "aria-label": label(i), title: label(i) }, thumb(pixels));
      button.addEventListener(
        "click",
        doing(async () => {
          for (const other of strip.children) other.classList.toggle("chosen", other === button);
          await choose(i);
        }),
      );
      return button;
    }),
  );
}

async function fillWithLatents(strip, latents, label, isNewest = () => true) {
  const { images } = await backend.decode(latents);
  if (isNewest()) fill(strip, images, (i) => moveTo(latents[i]), label);
}

async function drawMany() {
  const { latents } = await backend.draw({
    latent: state.latent,
    locked: state.locked,
    cluster: state.cluster,
    num: NUM_DRAWS,
  });
  await fillWithLatents(byId("draws"), latents, (i) => `draw ${i + 1}`);
}

// ---- data ----

async function showHeldOut() {
  const first = state.firstDatum;
  const { images, labels } = await backend.heldOut(first, NUM_DATA);
  const label = (i) => `held-out datum ${first + i}${labels ? `, class ${labels[i]}` : ""}`;
  fill(byId("held-out"), images, (i) => read({ index: first + i }), label);
  state.firstDatum = first + images.length < model.num_held_out ? first + images.length : 0;
  byId("more-data").hidden = model.num_held_out <= NUM_DATA;
}

async function read(what) {
  const isNewest = newest("reading");
  byId("reading").hidden = false;
  byId("score").textContent = "The model reads it; the first time this compiles for some seconds.";
  for (const id of ["datum", "reconstruction"]) byId(id).width = width;
  byId("datum-clusters").hidden = true;
  byId("posterior").replaceChildren();
  setReading(null);
  let found;
  try {
    found = await backend.read(what);
    if (!isNewest()) return; // another datum was chosen meanwhile
  } catch (error) {
    if (!isNewest()) return;
    byId("reading").hidden = true;
    throw error;
  }
  setReading(found);
  paint(byId("datum"), found.image);
  paint(byId("reconstruction"), found.reconstruction);
  byId("score").textContent = inWords(found.score);
  if (found.clusters) {
    byId("datum-clusters").textContent = `p(cluster | datum): ${heaviest(found.clusters)}`;
    byId("datum-clusters").hidden = false;
  }
  await fillWithLatents(byId("posterior"), found.latents, (i) => `posterior draw ${i + 1}`, isNewest);
}

function setReading(found) {
  state.reading = found;
  for (const id of ["datum-first", "datum-second"]) byId(id).disabled = !found;
}

function inWords(score) {
  if (score.reason) return `log p(x): ${score.reason}.`;
  const nats = score.log_prob.toFixed(1);
  const of = `${score.ess.toFixed(score.ess < 10 ? 1 : 0)} of ${score.num_proposals.toLocaleString("en")} proposals`;
  if (score.is_bound) return `log p(x) is at least ${nats} nats: a bound (ESS ${of}).`;
  return `log p(x) = ${nats} ± ${score.standard_error.toFixed(2)} nats (ESS ${of}).`;
}

const readFile = doing(async (file) => {
  if (file) await read({ file });
});

// ---- path ----

async function setEnd(which, latent) {
  state.ends[which] = latent.map(Math.fround);
  const { images } = await backend.decode([state.ends[which]]);
  paint(byId(which ? "second" : "first"), images[0]);
  await showPath();
}

async function showPath() {
  const [first, second] = state.ends;
  if (!first || !second) return;
  const isNewest = newest("path");
  const { latents } = await backend.path({ first, second, kind: byId("kind").value, num: NUM_ON_PATH });
  if (!isNewest()) return;
  state.path = latents;
  byId("along").max = NUM_ON_PATH - 1;
  byId("path-found").hidden = false;
  const shown = latents.filter((latent, i) => i % SHOWN_ON_PATH === 0);
  const { images } = await backend.decode(shown);
  if (!isNewest()) return;
  const choose = async (i) => {
    byId("along").value = i * SHOWN_ON_PATH;
    await moveTo(shown[i]);
  };
  fill(byId("path"), images, choose, (i) => `${percent((i * SHOWN_ON_PATH) / (NUM_ON_PATH - 1))} of the path`);
}

// ---- start ----

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("code").textContent);
    byId("copied").textContent = "copied";
  } catch {
    getSelection().selectAllChildren(byId("code")); // without permission a person can still press Ctrl-C
    byId("copied").textContent = "selected: press Ctrl-C to copy";
  }
}

function listen() {
  const onClick = (id, action) => byId(id).addEventListener("click", doing(action));
  onClick("draw-all", () => draw(model.names.map(() => false)));
  onClick("draw-unlocked", () => draw(state.locked));
  onClick("unlock", () => {
    state.locked.fill(false);
    for (const control of state.controls) setLock(control, false);
  });
  onClick("more-latents", showMoreLatents);
  onClick("draw-many", drawMany);
  onClick("more-data", showHeldOut);
  onClick("datum-first", () => setEnd(0, state.reading.latents[0]));
  onClick("datum-second", () => setEnd(1, state.reading.latents[0]));
  onClick("set-first", () => setEnd(0, state.latent));
  onClick("set-second", () => setEnd(1, state.latent));
  onClick("copy", copy);
  byId("kind").addEventListener("change", doing(showPath));
  byId("along").addEventListener("input", doing(() => moveTo(state.path[byId("along").value])));
  if (!backend.reads) return;
  byId("file").addEventListener("change", () => readFile(byId("file").files[0]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    readFile(event.dataTransfer.files[0]);
  });
}

// The medians of the heaviest cluster, or of every density.
function firstLatent() {
  if (model.clusters) {
    return model.clusters.reduce((best, cluster) => (cluster.share > best.share ? cluster : best)).median;
  }
  return state.curves.density.map((density, i) => {
    const total = density.reduce((sum, value) => sum + value, 0);
    let below = 0;
    const middle = density.findIndex((value) => (below += value) >= total / 2);
    return state.curves.latent[i][middle];
  });
}

async function start() {
  const size = model.data_shape.join(" × ");
  byId("about").textContent =
    `${model.names.length} latents, images of ${size}, step ${model.step.toLocaleString("en")} of ${model.workdir}.` +
    (backend.reads ? "" : " Everything is computed in this page; posteriors of data need kaem explore.");
  byId("shared").hidden = !model.is_shared;
  byId("data-section").hidden = !backend.reads;
  listen();
  state.curves = await backend.curves(null);
  state.latent = firstLatent().map(Math.fround);
  showMoreLatents();
  await show();
  if (model.clusters) await showClusters();
  await drawMany();
  if (backend.reads && model.num_held_out) await showHeldOut();
}

doing(start)();
