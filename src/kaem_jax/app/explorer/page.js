// The page. It shows what a source answers: `makeSource(data)` of served.js asks the server, that of static.js looks up.
// Both answer with promises. A picture is {latent, image, clusters}: D numbers, an address, a sentence or null.
//   curves(cluster)                        [{learned, base}], an SVG path each; cluster is null for all
//   decode(latent)                         picture
//   draw({latent, locked, cluster, num})   pictures
// and, from a server:
//   path(first, second)                    pictures
//   heldOut(first)                         [{index, image, title}]
//   readHeldOut(index), readFile(file)     {image, reconstruction, draws, clusters, score}

const { model, data } = JSON.parse(document.getElementById("content").textContent);
const source = makeSource(data);
const NUM_LATENTS = 24; // shown at once
const NUM_DRAWS = 24;

const state = {
  picture: model.start, // the present one
  start: model.start, // of the chosen cluster
  locked: model.start.latent.map(() => false),
  cluster: null,
  curves: [],
  controls: [],
  firstDatum: 0,
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

function say(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

// Runs what a control asks; a sentence says what went wrong.
function doing(action) {
  return async (...given) => {
    say("problem", "");
    try {
      await action(...given);
    } catch (error) {
      say("problem", error.message);
    }
  };
}

// A function that awaits an answer and then uses it, unless a newer question was asked meanwhile.
function latest(ask, use) {
  let last = 0;
  return async (...given) => {
    const mine = ++last;
    const answer = await ask(...given);
    if (mine === last) await use(answer, ...given);
  };
}

// ---- the present picture ----

let wanted = null; // the last place of the handles, which is decoded when the answer before it has come
let isBusy = false;

function show(picture) {
  wanted = null;
  state.picture = picture;
  byId("image").src = picture.image;
  byId("image").dataset.latent = picture.latent;
  say("belongs", picture.clusters && `p(cluster | latents): ${picture.clusters}`);
  state.controls.forEach(place);
  writeCode();
}

async function moveTo(latent) {
  state.picture = { ...state.picture, latent };
  wanted = latent;
  if (isBusy) return;
  isBusy = true;
  try {
    while (wanted) {
      const asked = wanted;
      wanted = null;
      const picture = await source.decode(asked);
      if (state.picture.latent === asked) show(picture);
      else if (wanted) byId("image").src = picture.image; // the handle is still moving
    }
  } finally {
    isBusy = false;
  }
}

function writeCode() {
  const { latent } = state.picture;
  const [rows, columns] = model.event_shape.length === 2 ? model.event_shape : [1, latent.length];
  const lines = Array.from({ length: rows }, (_, i) => `[${latent.slice(i * columns, (i + 1) * columns).join(", ")}]`);
  byId("code").textContent = [
    "import jax.numpy as jnp",
    "import kaem_jax as kaem",
    "",
    `model, params = kaem.load(${JSON.stringify(model.workdir)}, ${model.step})`,
    `z = jnp.array(${model.event_shape.length === 2 ? `[${lines.join(",\n               ")}]` : lines[0]})`,
    "image = model.decode(params, z)  # E[x | z]",
  ].join("\n");
}

// ---- latents ----

// The place of a handle that is nearest to the present latent.
function place(control) {
  const { values, z, index } = control.latent;
  const distances = values.map((value) => Math.abs(value - state.picture.latent[index]));
  const k = distances.indexOf(Math.min(...distances));
  control.range.value = k;
  control.output.value = (values[k] === z[k] ? state.picture.latent[index] : z[k]).toFixed(2);
  control.range.setAttribute("aria-valuetext", control.output.value);
}

function drawCurve(control) {
  for (const name of ["learned", "base"]) control[name].setAttribute("d", state.curves[control.latent.index][name]);
}

function makeControl(latent) {
  const { index, name, values, z, share } = latent;
  const control = { latent };
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 160 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const part of ["learned", "base"]) {
    control[part] = document.createElementNS(space, "path");
    control[part].setAttribute("class", part);
    svg.append(control[part]);
  }
  control.range = make("input", { type: "range", min: 0, max: values.length - 1, step: 1, "aria-label": name });
  control.output = make("output");
  control.lock = make("input", { type: "checkbox", disabled: !model.can_lock });
  const lock = make("label", { className: "live" }, control.lock, " lock");
  const title = [make("b", {}, name), make("span", { className: "share" }, share), control.output, lock];
  const ends = [z[0], z[z.length - 1]].map((end) => make("span", {}, end.toFixed(1)));
  control.element = make(
    "div",
    { className: "latent" },
    make("div", { className: "head" }, ...title),
    make("div", { className: "curve" }, svg, control.range),
    make("div", { className: "ends" }, ...ends),
  );
  control.range.addEventListener(
    "input",
    doing(async () => {
      const from = model.is_live ? state.picture : state.start;
      const moved = from.latent.slice();
      moved[index] = values[control.range.value];
      control.output.value = z[control.range.value].toFixed(2);
      await moveTo(moved);
    }),
  );
  control.lock.addEventListener("change", () => setLock(control, control.lock.checked));
  drawCurve(control);
  place(control);
  return control;
}

function setLock(control, isLocked) {
  state.locked[control.latent.index] = isLocked;
  control.lock.checked = isLocked;
  control.element.classList.toggle("locked", isLocked);
}

function showMoreLatents() {
  const shown = state.controls.length;
  state.controls.push(...model.latents.slice(shown, shown + NUM_LATENTS).map(makeControl));
  byId("latents").append(...state.controls.slice(shown).map((control) => control.element));
  byId("more-latents").hidden = state.controls.length === model.latents.length;
}

// ---- clusters and draws ----

const ask = (num) =>
  source.draw({ latent: state.picture.latent, locked: state.locked, cluster: state.cluster, num });

const draw = latest(() => ask(1), ([picture]) => show(picture));
const drawMany = latest(() => ask(NUM_DRAWS), (pictures) => fill("draws", pictures, show, "draw"));

const showCurves = latest(source.curves, (curves) => {
  state.curves = curves;
  state.controls.forEach(drawCurve);
});

async function chooseCluster(cluster) {
  state.cluster = cluster && cluster.index;
  state.start = cluster ? cluster.median : model.start;
  if (state.locked.some(Boolean)) await draw();
  else show(state.start);
  await Promise.all([showCurves(state.cluster), drawMany()]);
}

function showClusters() {
  const add = (cluster, ...label) => {
    const radio = make("input", { type: "radio", name: "cluster", value: cluster ? cluster.index : "all" });
    radio.checked = !cluster;
    radio.addEventListener("change", doing(() => chooseCluster(cluster)));
    byId("clusters").append(make("label", {}, radio, ...label));
  };
  add(null, "all clusters");
  for (const cluster of model.clusters) {
    add(cluster, make("img", { src: cluster.median.image, alt: "" }), `${cluster.index} · ${cluster.share}`);
  }
  byId("clusters-section").hidden = !model.clusters.length;
}

// Buttons with pictures; the one that was chosen last is marked.
function fill(strip, pictures, choose, title) {
  const buttons = pictures.map((picture, i) => {
    const name = picture.title ?? `${title} ${i + 1}`;
    const button = make("button", { type: "button", title: name }, make("img", { src: picture.image, alt: name }));
    button.addEventListener(
      "click",
      doing(async () => {
        for (const other of buttons) other.classList.toggle("chosen", other === button);
        await choose(picture);
      }),
    );
    return button;
  });
  byId(strip).replaceChildren(...buttons);
}

// ---- data and paths, from a server ----

async function showHeldOut() {
  const found = await source.heldOut(state.firstDatum);
  fill("held-out", found, ({ index }) => read(() => source.readHeldOut(index)));
  state.firstDatum = (state.firstDatum + found.length) % model.num_held_out;
  byId("more-data").hidden = found.length === model.num_held_out;
}

const showReading = latest(
  (answer) => answer(),
  (found) => {
    byId("datum").src = found.image;
    byId("reconstruction").src = found.reconstruction;
    say("score", found.score);
    say("datum-clusters", found.clusters && `p(cluster | datum): ${found.clusters}`);
    fill("posterior", found.draws, show, "posterior draw");
    byId("reading").hidden = false;
  },
);

async function read(answer) {
  byId("reading").hidden = true;
  say("waiting", "The model reads the datum. The first time, this compiles for some seconds.");
  try {
    await showReading(answer);
  } finally {
    say("waiting", "");
  }
}

let pathStart = model.start;

function setPathStart() {
  pathStart = state.picture;
  byId("path-start").src = pathStart.image;
}

const showPath = latest(
  () => source.path(pathStart.latent, state.picture.latent),
  (pictures) => fill("path", pictures, show, "point"),
);

async function start() {
  const onClick = (id, action) => byId(id).addEventListener("click", doing(action));
  onClick("draw", draw);
  onClick("unlock", () => state.controls.forEach((control) => setLock(control, false)));
  onClick("more-latents", showMoreLatents);
  onClick("draw-many", drawMany);
  onClick("more-data", showHeldOut);
  onClick("set-path-start", setPathStart);
  onClick("show-path", showPath);
  const file = byId("file");
  file.addEventListener("change", doing(async () => file.files[0] && read(() => source.readFile(file.files[0]))));
  await showCurves(null);
  showMoreLatents();
  show(model.start);
  setPathStart();
  showClusters();
  await drawMany();
  if (model.num_held_out) await showHeldOut();
}

doing(start)();
