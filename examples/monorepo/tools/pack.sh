# pack.sh FOLDER RESULT: one file of all.
find "$1" -type f | sort | xargs cat > "$2"
