// The keyboard: `/` goes to the search box. All else is what browsers do with links and buttons.

export function listenToKeys() {
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, textarea, select, dialog');
    if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const box = document.querySelector('main [data-search]');
    if (!box) return;
    event.preventDefault();
    box.focus();
    box.select();
  });
}
