// What the pages do beyond links and forms: copy a fix, follow what happens, zoom a flame graph.

const SECONDS = 5;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const code = document.getElementById(button.dataset.copy);
  const said = button.firstChild;
  const before = said.textContent;
  try {
    await navigator.clipboard.writeText(code.textContent);
    said.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code); // no permission: it is marked, and Ctrl-C does it
    said.textContent = "Press Ctrl-C";
  }
  setTimeout(() => { said.textContent = before; }, 1500);
});

// On a narrow screen the pages scroll sideways: show where we are.
document.querySelector(".bar nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

let live = true;

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-live-switch]");
  if (!button) return;
  live = !live;
  button.setAttribute("aria-pressed", String(live));
});

// The page is asked for again and its content replaced, except while somebody is at work in it.
async function refresh() {
  const main = document.querySelector("main[data-live]");
  if (!main) return; // what was waited for has come
  const busy = main.contains(document.activeElement) && document.activeElement !== main;
  if (!live || document.hidden || busy || getSelection().type === "Range") return;
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  if (!fresh || main.contains(document.activeElement) && document.activeElement !== main) return;
  const scrolled = [...main.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
  main.toggleAttribute("data-live", fresh.hasAttribute("data-live"));
  main.replaceChildren(...fresh.childNodes);
  main.querySelectorAll(".scroll").forEach((each, number) => { each.scrollLeft = scrolled[number] ?? 0; });
}

if (document.querySelector("main[data-live] [data-live-switch]")) {
  setInterval(() => refresh().catch(() => {}), SECONDS * 1000);
}

for (const flame of document.querySelectorAll("[data-flame]")) {
  const whole = 1000;
  flame.addEventListener("click", (event) => {
    const chosen = event.target.closest("g");
    const from = chosen && !chosen.classList.contains("chosen") ? Number(chosen.dataset.x) : 0;
    const width = chosen && !chosen.classList.contains("chosen") ? Number(chosen.dataset.w) : whole;
    for (const frame of flame.querySelectorAll("g")) {
      const x = (Number(frame.dataset.x) - from) / width * whole;
      const end = x + Number(frame.dataset.w) / width * whole;
      const left = Math.max(x, 0);
      const shown = Math.max(Math.min(end, whole) - left, 0);
      frame.classList.toggle("chosen", frame === chosen && width < whole);
      frame.querySelector("rect").setAttribute("x", left);
      frame.querySelector("rect").setAttribute("width", shown);
      const text = frame.querySelector("text");
      if (text) {
        text.setAttribute("x", left + 4);
        text.classList.toggle("hidden", shown < 40);
      }
    }
  });
}
