#!/usr/bin/env bash
# Takes the four pictures of the page, in both themes, at 10 and at 100,000 members, into the
# directory that is given. Needs Chromium (Debian: apt-get install chromium).
set -euo pipefail
dir=$(realpath "${1:?a directory for the pictures}")
cd "$(dirname "$0")/../.."
mkdir -p "$dir"
SYSTOLE_UI_PICTURES="$dir" SYSTOLE_UI_MEMBERS=100000 SYSTOLE_UI_SECONDS=65 \
    cargo test --test ui --locked the_page_lives_while_members_beat_come_and_go -- --nocapture
ls -l "$dir"/{10,100000}-members-{light,dark}.png
