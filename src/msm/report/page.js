for (const root of document.querySelectorAll("[data-viewer]")) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const id = root.dataset.viewer;
  const pair = root.querySelector(".pair");
  const slider = root.querySelector(".split");
  const chosen = (name) => Number(root.querySelector(`[name="${id}-${name}"]:checked`).value);

  function show(side, image) {
    const number = chosen(side);
    const layer = data.images[image][number];
    const box = root.querySelector(`[data-error="${side}"]`);
    if (box) box.disabled = !layer.error;
    const wrong = Boolean(box && box.checked && layer.error);
    const name = (wrong ? "error of " : "") + data.layers[number];
    const note = wrong ? layer.error_note : layer.note;
    const picture = root.querySelector(`.pair .${side}`);
    picture.src = wrong ? layer.error : layer.picture;
    picture.alt = `${data.names[image]}: ${name}`;
    const said = root.querySelector(`.${side}-said`);
    said.replaceChildren(Object.assign(document.createElement("b"), { textContent: name }), note);
    return name;
  }

  function update() {
    const image = chosen("image");
    const left = show("left", image), right = show("right", image);
    pair.style.setProperty("--split", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${left}, ${100 - slider.value} % ${right}`);
    root.querySelector(".name").textContent = data.names[image];
  }

  function drag(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = pair.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    update();
  }

  root.addEventListener("input", update);
  pair.addEventListener("pointerdown", drag);
  pair.addEventListener("pointermove", drag);
  update();
}
