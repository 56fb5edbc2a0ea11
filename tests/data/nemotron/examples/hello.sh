echo "hello, $1, from $(hostname)"
