"""Words that stand beside numbers, in the larger languages: scales, units, currencies, months."""

from __future__ import annotations

_SCALES = {
    2: "hundred hundert cien 百",
    3: "thousand thousands tausend mil mille mila тысяч тысячи тысяча ribu bin nghìn ngàn 千 천 พัน हज़ार हजार ألف آلاف",
    4: "万 萬 만 หมื่น",
    5: "lakh lakhs लाख แสน",
    6: "million millions mln millionen millón millones milhão milhões milione milioni миллион миллиона миллионов juta milyon triệu "
    "百万 ล้าน मिलियन مليون ملايين",
    7: "crore crores करोड़",
    8: "億 亿 억",
    9: "billion billions bn milliarde milliarden milliard milliards miliardo miliardi bilhão bilhões миллиард миллиарда "
    "миллиардов miliar milyar tỷ مليار",
    12: "trillion trillions trilhão trilhões триллион триллиона триллионов 兆 조",
}  # fmt: skip
SCALES = {word: 10**power for power, words in _SCALES.items() for word in words.split()} | {"dozen": 12, "dozens": 12}

_UNITS = {
    "%": "% percent per_cent pct prozent por_ciento por_cento pour_cent per_cento percento процент процента процентов yüzde persen "
    "phần_trăm เปอร์เซ็นต์ パーセント 퍼센트 प्रतिशत بالمئة بالمائة",
    "um": "um micrometer micrometers micrometre micrometres micron microns", "nm": "nm nanometer nanometers nanometre nanometres", "dm": "dm decimeter decimeters dezimeter",
    "mm": "mm millimeter millimeters millimetre millimetres 毫米 ミリ ミリメートル 밀리미터",
    "cm": "cm centimeter centimeters centimetre centimetres zentimeter centímetros centimètres см сантиметр сантиметра сантиметров "
    "厘米 公分 センチ センチメートル 센티미터 เซนติเมตร سم",
    "m": "m meter meters metre metres metro metros mètre mètres metri м метр метра метров 米 公尺 メートル 미터 เมตร متر मीटर mét",
    "km": "km kms kilometer kilometers kilometre kilometres kilómetros quilômetros kilomètres chilometri км километр километра "
    "километров 千米 公里 キロメートル 킬로미터 กิโลเมตร كم किलोमीटर",
    "in": "inch inches zoll pulgadas polegadas дюймов",
    "ft": "ft foot feet", "yd": "yd yard yards", "mi": "mi mile miles meilen millas milhas miglia миль",
    "ug": "ug microgram micrograms", "mg": "mg milligram milligrams milligramm", "g": "g gram grams gramme grammes gramm gramos gramas grammi г грамм граммов 克 グラム 그램 กรัม ग्राम",
    "kg": "kg kgs kilogram kilograms kilo kilos kilogramm kilogramme kilogrammes кг килограмм килограмма килограммов 千克 公斤 キログラム "
    "킬로그램 กิโลกรัม किलोग्राम كجم",
    "ton": "t ton tons tonne tonnes tonnen toneladas тонн 吨 トン 톤",
    "lb": "lb lbs pound pounds pfund libras", "oz": "oz ounce ounces",
    "ml": "ml milliliter milliliters millilitre millilitres мл 毫升 ミリリットル 밀리리터",
    "l": "l L liter liters litre litres litros litri литр литра литров л 升 リットル 리터 ลิตร لتر लीटर",
    "gal": "gal gallon gallons", "cup": "cup cups",
    "ns": "ns nanosecond nanoseconds", "us": "us microsecond microseconds", "ms": "ms millisecond milliseconds",
    "s": "s sec secs second seconds sekunde sekunden segundo segundos seconde secondes secondi секунд секунды секунда с 秒 秒钟 초 วินาที ثانية सेकंड giây saniye detik",
    "min": "min mins minute minutes minuten minuto minutos minuti минут минуты минута мин 分钟 分鐘 分間 분 นาที دقيقة मिनट phút dakika menit",
    "h": "h hr hrs hour hours stunde stunden hora horas heure heures ora ore час часа часов ч 小时 小時 時間 시간 ชั่วโมง ساعة ساعات घंटे giờ saat jam",
    "day": "day days tag tage tagen día días dia dias jour jours giorno giorni день дня дней 天 일 วัน يوم أيام दिन ngày gün hari",
    "week": "week weeks woche wochen semana semanas semaine semaines settimane недель недели неделя 周 星期 週間 주 สัปดาห์ أسبوع tuần hafta minggu",
    "month": "month months monat monate monaten mes meses mois mese mesi месяц месяца месяцев 个月 個月 ヶ月 か月 개월 เดือน شهر أشهر tháng ay bulan",
    "year": "year years yr yrs jahr jahre jahren año años ano anos an ans année années anno anni год года лет 年 년 ปี سنة سنوات năm yıl tahun",
    "km/h": "km/h kmh kph km/hr kilometers_per_hour kilometres_per_hour км/ч 千米/时 公里/小时", "mph": "mph miles_per_hour mi/h",
    "m/s": "m/s meters_per_second metres_per_second м/с 米/秒", "m/s^2": "m/s^2", "km/s": "km/s", "g/cm^3": "g/cm^3", "kg/m^3": "kg/m^3",
    "K": "K kelvin kelvins", "degC": "degC deg_C celsius deg_celsius degrees_celsius degrees_C",
    "degF": "degF deg_F fahrenheit deg_fahrenheit degrees_fahrenheit degrees_F",
    "": "deg degree degrees grad градусов 度 도 units unit unidades einheiten",
    "rad": "rad radian radians", "Hz": "Hz hertz", "kHz": "kHz", "MHz": "MHz", "GHz": "GHz", "kN": "kN", "N": "N newton newtons", "Nm": "Nm N*m newton-meters newton-metres", "J": "J joule joules",
    "kJ": "kJ kilojoules", "W": "W watt watts", "kW": "kW kilowatt kilowatts", "MW": "MW megawatt megawatts", "kWh": "kWh kilowatt-hours", "Pa": "Pa pascal pascals", "kPa": "kPa",
    "ppm": "ppm", "ppb": "ppb", "V": "V volt volts", "A": "A amp amps ampere amperes", "ohm": "ohm ohms Omega", "mol": "mol mole moles",
    "byte": "B byte bytes", "bit": "bit bits", "kB": "kB KB", "MB": "MB megabyte megabytes", "GB": "GB gigabyte gigabytes", "TB": "TB",
    "USD": "USD dollar dollars dólar dólares dollari доллар доллара долларов 美元 ドル 달러", "cent": "cent cents ¢ centavos",
    "EUR": "€ EUR euro euros евро 欧元 ユーロ 유로", "GBP": "£ GBP sterling", "JPY": "円 JPY yen 日元", "CNY": "元 块 CNY RMB yuan 人民币",
    "¥": "¥ ￥",
    "INR": "₹ INR rupee rupees रुपये रुपए रुपया", "KRW": "₩ KRW won 원", "RUB": "₽ RUB ruble rubles рубль рубля рублей руб", "BRL": "BRL reais real",
    "AUD": "AUD", "CAD": "CAD", "HKD": "HKD", "TWD": "TWD", "SGD": "SGD",
    "THB": "฿ THB baht บาท", "VND": "₫ VND đồng", "TRY": "₺ TRY lira tl", "IDR": "IDR rp rupiah",
}  # fmt: skip
UNITS = {word.replace("_", " "): name for name, words in _UNITS.items() for word in words.split()}
UNITS_FOLDED = {word.casefold(): name for word, name in UNITS.items() if len(word) > 2 or not word.isascii()}

NOT_COUNTED = frozenset(
    ["gross", "pair", "pairs", "couple", "score", "scores", "half", "halves", "quarter", "quarters", "third", "thirds", "fifths", "tenth", "tenths", "hundredth", "hundredths", "squared", "cubed", "or", "and", "to", "than", "more", "less", "fewer", "at", "not", "plus", "minus", "times", "no", "between", "am", "pm", "oclock", "o'clock", "divided", "over", "if", "when", "because", "since", "so", "modulo", "mod", "x", "y", "z", "n", "k", "if", "is", "are", "was", "were", "equals", "oder", "und", "y", "ou", "et", "или", "и", "o", "e", "ve", "veya", "atau", "dan", "hoặc", "và", "st", "nd", "rd", "th", "by", "but", "which", "ago", "bc", "bce", "north", "south", "east", "west"]
)  # fmt: skip


_MONTHS = (
    "january jan januar enero janvier janeiro gennaio января januari ocak ene",
    "february feb februar febrero février fevereiro febbraio февраля februari şubat",
    "march mar märz marzo mars março марта maret mart",
    "april apr abril avril aprile апреля nisan abr",
    "may mai mayo maio maggio мая mei mayıs",
    "june jun juni junio juin junho giugno июня haziran",
    "july jul juli julio juillet julho luglio июля temmuz",
    "august aug agosto août августа agustus ağustos ago",
    "september sep sept septiembre septembre setembro settembre сентября eylül",
    "october oct oktober octubre octobre outubro ottobre октября ekim okt",
    "november nov noviembre novembre novembro ноября kasım",
    "december dec dezember diciembre décembre dezembro dicembre декабря desember aralık dez dic",
)
MONTHS = {word: number for number, words in enumerate(_MONTHS, start=1) for word in words.split()}
