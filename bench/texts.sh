#!/bin/sh
# Four public texts for bench/quality.ts, from Debian packages: bench/texts.sh FOLDER
# Two stretches of the King James Bible, a technical handbook, and program code.
set -eu
out=$1
mkdir -p "$out/packages"
cd "$out/packages"
apt-get download bible-kjv bible-kjv-text debian-handbook libpython3.11-stdlib 2>/dev/null
for package in *.deb; do dpkg -x "$package" files; done
bible=$(find files -path '*bin/bible' -type f)
data=$(dirname "$(find files -name 'bible.data*' | head -n 1)")
"$bible" -p"$data" -f gen1:1-rev22:21 | sed 's/^[^ ]* //' > ../bible.txt
head -c 400000 ../bible.txt > ../bible_1.txt
tail -c 2000000 ../bible.txt | head -c 400000 > ../bible_2.txt
# The longer sections alone: the short ones are lists of links.
find files/usr/share/doc/debian-handbook/html/en-US -name 'sect.*.html' -size +8k | LC_ALL=C sort | while read -r page; do
  sed -e 's/<[^>]*>//g' -e 's/&nbsp;/ /g; s/&lt;/</g; s/&gt;/>/g; s/&quot;/"/g; s/&amp;/\&/g' "$page" | tr -s ' \t' | grep -v '^ *$'
done | head -c 400000 > ../handbook.txt
find files/usr/lib/python3.11 -maxdepth 1 -name '[a-d]*.py' -type f | LC_ALL=C sort | xargs cat | head -c 400000 > ../code.txt
cd .. && rm -rf packages && wc -c ./*.txt
