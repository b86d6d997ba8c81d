"""The pages in a real browser: a region drawn in the composer changes the image, and an audit is done by keyboard."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from pipeline_lib.audit.labels import digest_of_set, read_sheets
from pipeline_lib.audit.sheets import Sheet
from pipeline_lib.config import load_config
from pipeline_lib.data.shards import shards_in
from pipeline_lib.data.tables import write_table
from pipeline_lib.imaging.png import LINEAGE

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs a browser: apt-get install chromium chromium-driver, or their like"
    ),
]
WAIT = 60  # seconds; loading the networks takes most of it on a busy machine
#: For a container, and for a machine without a network.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Start the composer with the shipped weights; returns its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("composer") / "log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "pipeline_lib", "compose", "--count", "6", "--port", str(port)]
        server = subprocess.Popen(command, stderr=stream)
    try:
        for _ in range(10 * WAIT):
            with socket.socket() as tried:
                if not tried.connect_ex(("127.0.0.1", port)):
                    break
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def browser(tmp_path):
    """Start a browser, which saves downloads in the test's folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


@pytest.fixture
def page(address, browser):
    """Open the composer."""
    browser.get(address)
    WebDriverWait(browser, WAIT).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "body[data-ready]"))
    until(browser, lambda: shown(browser, "finished"))
    return browser


def until(page, condition):
    return WebDriverWait(page, WAIT, ignored_exceptions=[]).until(lambda _: condition())


def shown(page, stage) -> str | None:
    return page.find_element(By.ID, stage).get_attribute("src")


def draw(page) -> None:
    """Draw a stroke over the mouth of the image."""
    canvas: WebElement = page.find_element(By.ID, "canvas")
    stroke = ActionChains(page).move_to_element_with_offset(canvas, -40, 85).click_and_hold()
    for _ in range(8):
        stroke = stroke.move_by_offset(10, 0)
    stroke.release().perform()


def test_a_drawn_region_changes_the_image_and_can_be_undone(page):
    before = {stage: shown(page, stage) for stage in ("collage", "composite", "finished")}
    assert before["collage"] == before["finished"]  # nothing is pasted yet
    draw(page)
    until(page, lambda: all(shown(page, stage) != source for stage, source in before.items()))
    assert "ms an edit" in page.find_element(By.ID, "status").text
    page.find_element(By.ID, "undo").click()
    until(page, lambda: shown(page, "finished") == before["finished"])
    assert not page.find_element(By.ID, "error").text


def test_a_colour_is_pasted_and_has_no_detail(page):
    before = shown(page, "collage")
    page.find_element(By.CSS_SELECTOR, "[value=colour]").click()
    page.find_element(By.CSS_SELECTOR, "[data-box]").click()
    until(page, lambda: shown(page, "collage") != before)
    finish = Select(page.find_element(By.ID, "finish"))
    assert finish.first_selected_option.text == "region"
    assert not finish.options[2].is_enabled()
    assert not page.find_element(By.ID, "error").text


def test_what_is_downloaded_is_the_edit_with_its_lineage(page, tmp_path):
    draw(page)
    page.find_element(By.ID, "download").click()
    path = tmp_path / "sample-00-edit-1.png"
    until(page, path.exists)
    with Image.open(path) as image:
        edited, lineage = np.asarray(image).astype(int), json.loads(image.text[LINEAGE])
    assert (lineage["original"], lineage["synthetic"]) == ("sample-00", True)
    (step,) = lineage["steps"]
    assert (step["donor"], step["finish"]) == ("sample-01", "detail")
    assert step["pasted_pixels"] > 20
    assert edited.shape == (64, 64, 3)
    names = [button.get_attribute("title") for button in page.find_elements(By.CSS_SELECTOR, "#contexts button")]
    assert names[-1] == "sample-00-edit-1"  # and can be edited further


def test_an_audit_is_done_by_keyboard_and_saved(browser, tmp_path, write_shards):
    names = [f"image-{number}" for number in range(6)]
    results = tmp_path / "results"
    (results / "labels").mkdir(parents=True)
    table = pd.DataFrame({"image_id": names, "edited": [True] * 5 + [False]})
    write_table(results / "labels/dataset_rebalanced.parquet", "assembled", table)
    plan = pd.DataFrame({"image_id": table.loc[table["edited"], "image_id"], "target": 0, "attribute": "smiling"})
    write_table(results / "plan/dataset.parquet", "plan", plan.assign(position=range(len(plan)), wanted=True))
    (results / "images/dataset_rebalanced").mkdir(parents=True)
    for path in write_shards(np.zeros((6, 16, 16, 3), np.uint8), names):
        path.rename(results / "images/dataset_rebalanced" / path.name)
    config = load_config("config/config.yaml")
    page, _ = Sheet(config, results, "dataset_rebalanced", 5, 1).write(tmp_path / "sheet")
    browser.get(page.as_uri())
    keys = browser.find_element(By.TAG_NAME, "body").send_keys
    progress = browser.find_element(By.ID, "progress")
    keys("qw")  # yes, yes
    assert progress.text == "image 2 of 6, 1 labelled"
    keys("as")  # no, no
    keys(Keys.ENTER)  # the third cannot be determined
    keys("qs")
    keys(Keys.BACKSPACE)  # back to the fourth, which is changed
    keys("a")
    browser.refresh()  # nothing is lost
    assert browser.find_element(By.ID, "progress").text == "image 5 of 6, 4 labelled"
    browser.find_element(By.ID, "save").click()
    saved = tmp_path / "audit-avatars-1.csv"
    until(browser, saved.exists)
    (sheet,) = read_sheets([saved], "dataset_rebalanced", set(names), ["smiling", "long_hair"])
    assert set(sheet.digests) == {digest_of_set("dataset_rebalanced", shards_in(results / "images/dataset_rebalanced"))}
    found = sheet.labels
    assert found["smiling"].dropna().tolist().count(True) == 1
    edits, edited = sheet.of_edits({config.rebalance.edits_digest("smiling"): "smiling"})
    assert set(edited) == {"smiling"}
    assert 0 < len(edits) <= len(found)
    assert len(found.dropna()) == 3
    assert len(found) == 4
