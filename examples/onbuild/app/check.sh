echo "checked for $MODE: $(wc -l < list.txt) lines"
