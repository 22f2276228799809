#!/bin/sh
# Counts to GOAL, a step a second; warned of the time limit, it writes down where it is and asks to be started again.
save="$CC_JOB_DIR/step" # the same folder for all attempts of a job, on this node
step=$(cat "$save" 2>/dev/null || echo 0)
warned=
trap 'warned=yes' USR2

echo "restart $CC_RESTART_COUNT begins after step $step"
while [ "$step" -lt "${GOAL:-100}" ]; do
  if [ -n "$warned" ]; then
    echo "$step" >"$save.new" && mv "$save.new" "$save" # whole or not at all
    echo "{\"checkpoint\": {\"path\": \"$save\", \"step\": $step}}" >>"$CC_REPORT"
    echo "warned: saved step $step"
    exit 75 # one of the job's requeue_exit_codes
  fi
  sleep "${PACE:-1}"
  step=$((step + 1))
  echo "{\"step\": $step, \"progress\": $(printf '%d.%02d' $((step / ${GOAL:-100})) $((step * 100 / ${GOAL:-100} % 100)))}" >>"$CC_REPORT"
done
echo "done: step $step"
