// The lowest contrast of a text with what is behind it, by WCAG 2: [ratio, what is needed, the text].
// Colours are those that the browser has computed, mixed where they are not opaque.
const channels = (colour) => {
  const found = colour.match(/[\d.]+/g).map(Number);
  return [found[0], found[1], found[2], found.length > 3 ? found[3] : 1];
};
const over = (front, back) => [0, 1, 2].map((n) => front[n] * front[3] + back[n] * (1 - front[3]));
const luminance = (colour) => {
  const [r, g, b] = colour.map((value) => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    layers.push(channels(getComputedStyle(each).backgroundColor));
  }
  return layers.reverse().reduce((back, layer) => over(layer, back), [255, 255, 255]);
};
let worst = [99, 4.5, ""];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, style = getComputedStyle(element);
  const words = walker.currentNode.data.trim();
  if (!words || !element.getClientRects().length || element.closest("title, desc, style")) continue;
  const back = behind(element), ink = element.closest("svg") ? style.fill : style.color;
  const [high, low] = [luminance(over(channels(ink), back)), luminance(back)].sort((a, b) => b - a);
  const size = parseFloat(style.fontSize), isBold = Number(style.fontWeight) >= 700;
  const needed = size >= 24 || (isBold && size >= 18.66) ? 3 : 4.5;
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio / needed < worst[0] / worst[1]) worst = [ratio, needed, words.slice(0, 60)];
}
return worst;
