# label, arm, value by round -> a table: median, spread, and ratio to the first arm.
function sorted(list, n,    i, j, swap) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && list[j] < list[j - 1]; j--) {
            swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap
        }
}
function median(list, n) { return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2 }
function text(v) { return v >= 1000 ? sprintf("%.0f", v) : v >= 10 ? sprintf("%.1f", v) : sprintf("%.3f", v) }
function spread(list, n) { sorted(list, n); return text(median(list, n)) " (" text(list[1]) "–" text(list[n]) ")" }

!(($1, $2) in count) { if (!($1 in arms)) labels[++known] = $1; arm[$1, ++arms[$1]] = $2 }
{ value[$1, $2, ++count[$1, $2]] = $3 }

END {
    print "| figure | setting | measured | against the first |"
    print "|---|---|---|---|"
    for (l = 1; l <= known; l++) {
        label = labels[l]; first = arm[label, 1]
        for (a = 1; a <= arms[label]; a++) {
            name = arm[label, a]; n = count[label, name]; ratios = 0
            for (i = 1; i <= n; i++) {
                values[i] = value[label, name, i]
                base = value[label, first, i]
                if (base > 0) ratio[++ratios] = values[i] / base
            }
            against = a == 1 || !ratios ? "" : spread(ratio, ratios)
            printf "| %s | %s | %s | %s |\n", a == 1 ? label : "", name, spread(values, n), against
        }
    }
}
